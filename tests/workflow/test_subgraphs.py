"""Subgraphs: the ids of what is inside, links in and out, promoted widgets new and old, instances that share one."""

from __future__ import annotations

from typing import Any

import pytest
from workflow.making import DEFINITIONS, export, make_node, make_subgraph, make_workflow

from pipeline.errors import ConfigError
from pipeline.workflow.to_api import WorkflowExport

LOAD = make_node(1, "Load", ["b"])


def with_subgraphs(nodes: list[dict[str, Any]], links: list[list[Any]], *subgraphs: dict[str, Any]) -> dict[str, Any]:
    return make_workflow(nodes, links, definitions={"subgraphs": list(subgraphs)}, last_node_id=20)


def make_encoder(text: str = "inside") -> dict[str, Any]:
    """A subgraph `sub` with inputs clip and text, and the output of its Encode."""
    return make_subgraph(
        "sub",
        [make_node(5, "Encode", [text], {"text": 2, "clip": 1}, ["text"])],
        [[1, -10, 0, 5, 1, "CLIP"], [2, -10, 1, 5, 0, "STRING"], [3, 5, 0, -20, 0, "CONDITIONING"]],
        [("clip", "CLIP"), ("text", "STRING")],
        [("CONDITIONING", "CONDITIONING")],
    )


def test_what_is_inside_has_the_ids_of_its_hosts_before_its_own() -> None:
    nodes = [LOAD, make_node(2, "sub", [], {"clip": 1}), make_node(3, "Show", None, {"any": 2})]
    got = export(with_subgraphs(nodes, [[1, 1, 1, 2, 0, "CLIP"], [2, 2, 0, 3, 0, "*"]], make_encoder()))
    assert got["2:5"] == {"text": "inside", "clip": ["1", 1]}
    assert got["3"] == {"any": ["2:5", 0]}


def test_each_instance_has_values_of_its_own() -> None:
    nodes = [make_node(2, "sub", ["one"]), make_node(3, "sub", ["two"]), make_node(4, "sub")]
    got = export(with_subgraphs(nodes, [], make_encoder()))
    assert {name: inputs["text"] for name, inputs in got.items()} == {"2:5": "one", "3:5": "two", "4:5": "inside"}


@pytest.mark.parametrize(("mode", "wanted"), [(0, ["4", 0]), (2, "inside")])
def test_a_linked_input_of_a_host_counts_more_than_its_value_unless_nothing_comes_of_it(mode: int, wanted: Any) -> None:
    nodes = [make_node(2, "sub", ["held"], {"text": 1}), make_node(4, "Number", [1], mode=mode)]
    got = export(with_subgraphs(nodes, [[1, 4, 0, 2, 1, "STRING"]], make_encoder()))
    assert got["2:5"]["text"] == wanted


def test_a_value_goes_to_all_that_the_input_is_linked_to_sockets_as_well() -> None:
    subgraph = make_subgraph(
        "sub",
        [make_node(5, "Show", None, {"any": 1}), make_node(6, "Number", [7], {"value": 2}, ["value"])],
        [[1, -10, 0, 5, 0, "INT"], [2, -10, 0, 6, 0, "INT"]],
        [("value", "INT")],
    )
    got = export(with_subgraphs([make_node(2, "sub", [1024])], [], subgraph))
    assert got == {"2:5": {"any": 1024}, "2:6": {"value": 1024}}


def test_an_input_that_leads_to_no_widget_holds_no_value() -> None:
    subgraph = make_subgraph("sub", [make_node(5, "Show", None, {"any": 1})], [[1, -10, 0, 5, 0, "*"]], [("any", "*")])
    assert export(with_subgraphs([make_node(2, "sub", [1024])], [], subgraph)) == {"2:5": {}}


def test_texts_of_a_host_are_no_dynamic_prompts() -> None:
    assert export(with_subgraphs([make_node(2, "sub", ["{a|b}"])], [], make_encoder()))["2:5"]["text"] == "{a|b}"


# Nested


def make_outer(**host: Any) -> dict[str, Any]:
    """A subgraph `outer` around a host of `sub`."""
    inner = make_node(7, "sub", ["nested"], {"clip": 1, "text": 2}, **host)
    return make_subgraph(
        "outer",
        [inner],
        [[1, -10, 0, 7, 0, "CLIP"], [2, -10, 1, 7, 1, "STRING"], [3, 7, 0, -20, 0, "CONDITIONING"]],
        [("clip", "CLIP"), ("words", "STRING")],
        [("out", "CONDITIONING")],
    )


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("values", "text"), [(["top"], "top"), ([], "nested")])
def test_values_pass_through_nested_hosts(order: int, values: list[str], text: str) -> None:
    nodes = [LOAD, make_node(2, "outer", values, {"clip": 1}), make_node(3, "Show", None, {"any": 2})]
    subgraphs = [make_encoder(), make_outer()][::order]
    got = export(with_subgraphs(nodes, [[1, 1, 1, 2, 0, "CLIP"], [2, 2, 0, 3, 0, "*"]], *subgraphs))
    assert got == {"1": {"name": "b"}, "2:7:5": {"text": text, "clip": ["1", 1]}, "3": {"any": ["2:7:5", 0]}}


@pytest.mark.parametrize("mode", [2, 4])
def test_a_silent_host_contributes_nothing_but_within_another_its_inside_stays(mode: int) -> None:
    assert export(with_subgraphs([make_node(2, "outer", mode=mode)], [], make_encoder(), make_outer())) == {}
    nested = export(with_subgraphs([make_node(2, "outer")], [], make_encoder(), make_outer(mode=mode)))
    assert list(nested) == ["2:7:5"]


def test_a_bypassed_host_passes_its_inputs_on_but_not_the_values_it_holds() -> None:
    through = make_subgraph(
        "through",
        [make_node(5, "Patch", [1.0], {"model": 1, "clip": 2}), make_node(6, "Number", [1], {"value": 4}, ["value"])],
        [
            *([1, -10, 0, 5, 0, "MODEL"], [2, -10, 1, 5, 1, "CLIP"], [3, 5, 1, -20, 0, "CLIP"]),
            *([4, -10, 2, 6, 0, "INT"], [5, 6, 0, -20, 1, "INT"]),
        ],
        [("model", "MODEL"), ("clip", "CLIP"), ("value", "INT")],
        [("CLIP", "CLIP"), ("INT", "INT")],
    )
    host = make_node(2, "through", [5], {"model": 1, "clip": 2}, mode=4)
    ends = [make_node(3, "Encode", ["x"], {"clip": 3}), make_node(4, "Number", [9], {"value": 4}, ["value"])]
    links = [[1, 1, 0, 2, 0, "MODEL"], [2, 1, 1, 2, 1, "CLIP"], [3, 2, 0, 3, 1, "CLIP"], [4, 2, 1, 4, 0, "INT"]]
    got = export(with_subgraphs([LOAD, host, *ends], links, through))
    assert (got["3"]["clip"], got["4"]["value"]) == (["1", 1], 9)


def test_an_input_linked_straight_to_an_output_passes_through() -> None:
    straight = make_subgraph("straight", [], [[1, -10, 0, -20, 0, "CLIP"]], [("in", "CLIP")], [("out", "CLIP")])
    nodes = [LOAD, make_node(2, "straight", [], {"in": 1}), make_node(3, "Encode", ["x"], {"clip": 2})]
    got = export(with_subgraphs(nodes, [[1, 1, 1, 2, 0, "CLIP"], [2, 2, 0, 3, 1, "CLIP"]], straight))
    assert got["3"]["clip"] == ["1", 1]


def test_a_subgraph_within_itself_is_refused() -> None:
    loop = make_subgraph("sub", [make_node(5, "sub")], [])
    with pytest.raises(ConfigError, match="subgraph sub: contains itself"):
        export(with_subgraphs([make_node(2, "sub")], [], loop))


def test_a_primitive_does_not_reach_into_a_subgraph_and_a_warning_says_so() -> None:
    nodes = [make_node(1, "PrimitiveNode", ["outside"]), make_node(2, "sub", ["held"], {"text": 1})]
    exported = WorkflowExport(with_subgraphs(nodes, [[1, 1, 0, 2, 1, "STRING"]], make_encoder()), DEFINITIONS)
    assert exported.make_prompt()["2:5"]["inputs"]["text"] == "inside"
    assert "(sub, input text), so 'outside' is not used" in exported.warnings[0]


# Ids


def test_ids_that_are_taken_are_counted_on_from_the_last_one() -> None:
    first = make_subgraph("a", [make_node(1, "Number", [1]), make_node(30, "Number", [2])], [])
    second = make_subgraph("b", [make_node(1, "Number", [3]), make_node(21, "Number", [4])], [])
    nodes = [LOAD, make_node(2, "a"), make_node(3, "b")]
    got = export(with_subgraphs(nodes, [], first, second))
    assert {name: inputs.get("value") for name, inputs in got.items()} == {
        "1": None,
        "2:21": 1,
        "2:30": 2,
        "3:31": 3,
        "3:32": 4,
    }


def test_links_and_promoted_widgets_follow_the_new_ids() -> None:
    subgraph = make_encoder()
    nodes = [make_node(5, "Number", [1]), make_node(2, "sub", ["x"], properties={"proxyWidgets": [["5", "text"]]})]
    got = export(with_subgraphs(nodes, [], subgraph))
    assert got["2:21"]["text"] == "x"


# The older way to promote


def make_sampler() -> dict[str, Any]:
    """A subgraph `sub` whose inputs are all inside: a Sample, an Encode and a primitive with two targets."""
    return make_subgraph(
        "sub",
        [
            make_node(5, "Sample", [1, "fixed", 20, "heun"], {"steps": None}, ["steps"]),
            make_node(6, "Encode", ["inside"]),
            make_node(8, "PrimitiveNode", [3, "fixed"], outputs=[{"type": "INT"}]),
            make_node(9, "Number", [1], {"value": 1}, ["value"]),
            make_node(10, "Number", [2], {"value": 2}, ["value"]),
        ],
        [[1, 8, 0, 9, 0, "INT"], [2, 8, 0, 10, 0, "INT"]],
    )


def promote(entries: list[list[str]], values: list[Any] | None) -> Any:
    host = make_node(2, "sub", values, properties={"proxyWidgets": entries})
    return export(with_subgraphs([host], [], make_sampler()))


def test_an_entry_becomes_an_input_that_holds_its_value() -> None:
    got = promote([["5", "steps"], ["6", "text"]], [8, "promoted"])
    assert (got["2:5"], got["2:6"]) == (
        {"seed": 1, "steps": 8, "sampler_name": "heun"},
        {"text": "promoted"},
    )


def test_entries_without_a_value_keep_that_of_the_widget() -> None:
    got = promote([["5", "steps"], ["6", "text"]], [None])
    assert (got["2:5"]["steps"], got["2:6"]["text"]) == (20, "inside")


def test_entries_for_controls_previews_and_what_is_gone_are_passed_over() -> None:
    entries = [["5", "control_after_generate"], ["5", "$$canvas"], ["77", "x"], ["5", "gone"], ["5", "seed"]]
    assert promote(entries, ["randomize", 1, 2, 3, 42])["2:5"] == {"seed": 42, "steps": 20, "sampler_name": "heun"}


def test_an_entry_may_number_the_node_in_the_name_of_the_widget() -> None:
    assert promote([["6", "6: text"]], ["promoted"])["2:6"]["text"] == "promoted"


@pytest.mark.parametrize(("values", "wanted"), [([44], 44), (None, 1)])
def test_an_entry_for_a_primitive_takes_over_all_its_targets(values: list[int] | None, wanted: int) -> None:
    got = promote([["8", "value"]], values)
    assert (got["2:9"]["value"], got["2:10"]["value"]) == (wanted, wanted)


def test_entries_for_a_primitive_and_its_control_leave_it_in_place() -> None:
    got = promote([["8", "value"], ["8", "control_after_generate"]], [44, "fixed"])
    assert (got["2:9"]["value"], got["2:10"]["value"]) == (3, 3)


def test_values_that_the_front_end_could_not_place_go_by_the_names_of_inputs() -> None:
    quarantine = [
        {"originalEntry": ["-1", "text"], "hostValue": "kept"},
        {"originalEntry": ["-1", "text"], "hostValue": "later"},
        {"originalEntry": ["7", "text"], "hostValue": "of another"},
    ]
    host = make_node(2, "sub", ["by place"], properties={"proxyWidgetErrorQuarantine": quarantine})
    assert export(with_subgraphs([host], [], make_encoder()))["2:5"]["text"] == "kept"


def test_a_null_is_kept_but_in_a_combo_where_it_means_the_first_choice() -> None:
    subgraph = make_subgraph(
        "sub",
        [make_node(5, "Sample", [1, "fixed", 20, "heun"], {"steps": 1, "sampler_name": 2}, ["steps", "sampler_name"])],
        [[1, -10, 0, 5, 0, "INT"], [2, -10, 1, 5, 0, "COMBO"]],
        [("steps", "INT"), ("sampler_name", "COMBO")],
    )
    outer = make_subgraph(
        "outer", [make_node(7, "sub", None, {"sampler_name": 1})], [[1, -10, 0, 7, 0, "COMBO"]], [("name", "COMBO")]
    )
    nodes = [make_node(2, "sub", [None, None]), make_node(3, "outer", [None])]
    got = export(with_subgraphs(nodes, [], subgraph, outer))
    assert (got["2:5"]["steps"], got["2:5"]["sampler_name"], got["3:7:5"]["sampler_name"]) == (None, "euler", "euler")


def test_an_entry_may_name_an_input_of_the_host_itself_or_what_it_leads_to() -> None:
    nodes = [
        make_node(2, "sub", ["first"], properties={"proxyWidgets": [["-1", "text"]]}),
        make_node(3, "sub", ["second"], properties={"proxyWidgets": [["5", "text"]]}),
    ]
    got = export(with_subgraphs(nodes, [], make_encoder()))
    assert (got["2:5"]["text"], got["3:5"]["text"]) == ("first", "second")


def test_instances_that_share_a_subgraph_promote_each_for_itself() -> None:
    nodes = [
        make_node(2, "sub", [8], properties={"proxyWidgets": [["5", "steps"]]}),
        make_node(3, "sub", [9], properties={"proxyWidgets": [["5", "steps"]]}),
        make_node(4, "sub"),
    ]
    got = export(with_subgraphs(nodes, [], make_sampler()))
    assert [got[f"{host}:5"]["steps"] for host in (2, 3, 4)] == [8, 9, 20]


@pytest.mark.parametrize("entry", [["7", "text"], ["7", "text", "5"], ["7", "5: text"]])
def test_an_entry_may_name_a_widget_deeper_inside(entry: list[str]) -> None:
    outer = make_subgraph("outer", [make_node(7, "sub", ["nested"])], [])
    host = make_node(2, "outer", ["deep"], properties={"proxyWidgets": [entry]})
    got = export(with_subgraphs([host], [], make_encoder(), outer))
    assert got["2:7:5"]["text"] == "deep"
