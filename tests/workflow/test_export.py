"""What the prompt has for each node: links through reroutes, bypassed and muted nodes, primitives, texts."""

from __future__ import annotations

import json
import random
from datetime import datetime
from typing import Any

import pytest
from workflow.making import DEFINITIONS, define, export, make_node, make_workflow

from pipeline.errors import ConfigError
from pipeline.workflow.definitions import NodeDefinition
from pipeline.workflow.to_api import WorkflowExport

LOAD = make_node(1, "Load", ["b"])


def patch(node_id: int, mode: int = 0, model: int | None = 1, clip: int | None = 2) -> dict[str, Any]:
    return make_node(node_id, "Patch", [0.5], {"model": model, "clip": clip}, mode=mode)


def test_widgets_and_links_are_given_and_helpers_of_the_gui_are_not() -> None:
    nodes = [LOAD, patch(2), make_node(3, "Note", ["hello"]), make_node(4, "MarkdownNote", ["hello"])]
    got = export(make_workflow(nodes, [[1, 1, 0, 2, 0, "MODEL"], [2, 1, 1, 2, 1, "CLIP"]]))
    assert got == {"1": {"name": "b"}, "2": {"strength": 0.5, "model": ["1", 0], "clip": ["1", 1]}}


def test_version_1_says_the_same_with_mappings_for_links() -> None:
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [[1, 1, 0, 2, 0, "MODEL"], [2, 1, 1, 2, 1, "CLIP"]]
    old = make_workflow([LOAD, patch(2)], links)
    new = {**old, "version": 1, "links": [dict(zip(keys, link, strict=True)) for link in links]}
    assert export(new) == export(old)


def test_ids_may_be_texts_and_the_target_slot_of_a_link_does_not_matter() -> None:
    nodes = [make_node("x", "Load", ["a"]), patch(2, clip=None)]
    assert export(make_workflow(nodes, [[1, "x", 0, "2", 99, "MODEL"]]))["2"]["model"] == ["x", 0]


def test_a_link_that_leads_nowhere_is_dropped_with_a_warning() -> None:
    exported = WorkflowExport(make_workflow([patch(2, model=1, clip=2)], [[1, 77, 0, 2, 0, "MODEL"]]), DEFINITIONS)
    assert exported.make_prompt()["2"]["inputs"] == {"strength": 0.5}
    assert [warning.split(";")[0] for warning in exported.warnings] == [
        "node 2 (Patch), input model: link 1 leads nowhere",
        "node 2 (Patch), input clip: link 2 leads nowhere",
    ]


def test_an_input_that_the_class_does_not_declare_is_given_if_it_is_linked_and_is_no_widget() -> None:
    extra = make_node(2, "Number", [3], {"more": 1, "gone": 1}, ["gone"])
    assert export(make_workflow([LOAD, extra], [[1, 1, 0, 2, 0, "MODEL"]]))["2"] == {"value": 3, "more": ["1", 0]}


# Bypass and mute

CHAIN = [[1, 1, 0, 2, 0, "MODEL"], [2, 1, 1, 2, 1, "CLIP"], [3, 2, 0, 3, 0, "MODEL"], [4, 2, 1, 3, 1, "CLIP"]]


@pytest.mark.parametrize(("mode", "model", "clip"), [(0, ["2", 0], ["2", 1]), (4, ["1", 0], ["1", 1]), (2, None, None)])
def test_a_bypassed_node_passes_its_inputs_on_and_a_muted_one_gives_nothing(mode: int, model: Any, clip: Any) -> None:
    got = export(make_workflow([LOAD, patch(2, mode), patch(3, model=3, clip=4)], CHAIN))
    assert ("2" in got, got["3"].get("model"), got["3"].get("clip")) == (mode == 0, model, clip)


def bypass(inputs: dict[str, Any], outputs: list[str], wanted: str, output: int = 0, **saved: Any) -> Any:
    """What a node that wants a type gets from an output of a bypassed node with these inputs, all linked."""
    definitions = define("Through", inputs, outputs) | define("Source", {}, ["*"] * 9) | define("End", {"x": [wanted]})
    links = {name.lstrip("?"): 10 + place for place, name in enumerate(inputs)}
    nodes = [
        make_node(1, "Source"),
        make_node(2, "Through", saved.get("values"), links, mode=4),
        make_node(3, "End", None, {"x": 1}),
    ]
    lines = [[10 + place, 1, place, 2, place, "*"] for place in range(len(inputs))]
    found = export(make_workflow(nodes, [*lines, [1, 2, output, 3, 0, "*"]]), definitions)["3"].get("x")
    return found and found[1]


def test_a_bypassed_node_prefers_the_input_in_the_place_of_the_output() -> None:
    assert bypass({"a": ["MODEL"], "b": ["MODEL"]}, ["MODEL", "MODEL"], "MODEL", 1) == 1


def test_else_the_first_input_of_exactly_the_type_wanted_else_the_first_that_fits() -> None:
    assert bypass({"a": ["CLIP"], "b": ["model"], "c": ["MODEL"]}, ["MODEL"], "MODEL") == 2
    assert bypass({"a": ["CLIP"], "b": ["model,VAE"]}, ["MODEL"], "MODEL") == 1
    assert bypass({"a": ["CLIP"]}, ["MODEL"], "MODEL") is None


def test_what_takes_anything_gets_the_input_in_the_place_of_the_output_or_the_first() -> None:
    assert bypass({"a": ["CLIP"], "b": ["VAE"]}, ["MODEL", "MODEL"], "*", 1) == 1
    assert bypass({"a": ["CLIP"]}, ["MODEL", "MODEL"], "*", 1) == 0


def test_widgets_come_after_sockets_whatever_the_order_of_the_declaration() -> None:
    inputs = {"n": ["INT"], "a": ["MODEL"], "b": ["MODEL"]}
    assert bypass(inputs, ["MODEL"], "MODEL", values=[1]) == 1


def test_the_output_of_a_match_type_is_of_the_type_that_is_linked() -> None:
    matched = ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "*"}}]
    definitions = define("Match", {"a": matched}, ["COMFY_MATCHTYPE_V3"], output_matchtypes=["t"])
    nodes = [LOAD, make_node(2, "Match", None, {"a": 1}, mode=4), make_node(3, "Encode", ["x"], {"clip": 2})]
    links = [[1, 1, 1, 2, 0, "CLIP"], [2, 2, 0, 3, 0, "CLIP"]]
    assert export(make_workflow(nodes, links), definitions)["3"]["clip"] == ["1", 1]


def test_beyond_a_bypassed_node_the_type_wanted_is_that_of_its_input() -> None:
    definitions = {**define("Any", {"a": ["*"]}, ["*"])}
    nodes = [LOAD, patch(2, 4), make_node(3, "Any", None, {"a": 3}, mode=4), make_node(4, "Encode", ["x"], {"clip": 4})]
    links = [[1, 1, 0, 2, 0, "MODEL"], [2, 1, 1, 2, 1, "CLIP"], [3, 2, 1, 3, 0, "CLIP"], [4, 3, 0, 4, 1, "CLIP"]]
    assert export(make_workflow(nodes, links), definitions)["4"]["clip"] == ["1", 1]


def test_bypassed_nodes_can_be_kept_with_links_to_them() -> None:
    exported = WorkflowExport(make_workflow([LOAD, patch(2, 4), patch(3, model=3, clip=4)], CHAIN), DEFINITIONS)
    prompt = exported.make_prompt(exported.bypassed)
    assert exported.bypassed == {"2"}
    assert prompt["2"]["inputs"] == {"strength": 0.5, "model": ["1", 0], "clip": ["1", 1]}
    assert prompt["3"]["inputs"]["model"] == ["2", 0]


# Reroutes and primitives


@pytest.mark.parametrize(("mode", "wanted"), [(0, ["1", 1]), (2, None), (4, ["1", 1])])
def test_a_reroute_passes_its_link_on_unless_it_is_muted(mode: int, wanted: Any) -> None:
    through = make_node(2, "Reroute", None, {"": 1}, mode=mode, outputs=[{"type": "*"}])
    nodes = [LOAD, through, make_node(3, "Encode", ["x"], {"clip": 2})]
    assert export(make_workflow(nodes, [[1, 1, 1, 2, 0, "*"], [2, 2, 0, 3, 0, "*"]]))["3"].get("clip") == wanted


def test_a_primitive_writes_its_value_into_all_that_it_is_linked_to() -> None:
    nodes = [
        make_node(1, "PrimitiveNode", [11, "fixed"], mode=4),
        make_node(2, "Number", [3], {"value": 1}, ["value"]),
        make_node(3, "Sample", [1, "fixed", 20, "heun"], {"steps": 2}, ["steps"]),
    ]
    got = export(make_workflow(nodes, [[1, 1, 0, 2, 0, "INT"], [2, 1, 0, 3, 1, "INT"]]))
    assert got == {"2": {"value": 11}, "3": {"seed": 1, "steps": 11, "sampler_name": "heun"}}


@pytest.mark.parametrize(
    ("declaration", "value", "wanted"),
    [
        (["FLOAT", {"step": 0.1, "min": 0.0, "max": 100.0, "round": 0.01}], 4.98, 5),
        (["FLOAT", {"step": 0.01, "min": 0.0, "max": 1.0}], 0.756, 0.76),
        (["FLOAT", {"step": 0.01, "min": 0.0, "max": 1.0}], 7.5, 1),
        (["FLOAT", {"min": -10.0, "max": 10.0}], -0.34, -0.3),
        (["FLOAT", {"step": 1.0}], 0.34, 0.34),
        (["INT", {"min": 16, "max": 4096, "step": 8}], 515, 512),
        (["INT", {"min": 1, "max": 97, "step": 4}], 14, 13),
        (["INT", {}], 5000, 2048),
        (["INT", {"max": 2**64 - 1}], 2**64 - 1, 2**64 - 1),
        (["BOOLEAN"], True, True),
        (["STRING"], "text", "text"),
    ],
)
def test_a_number_of_a_primitive_is_fitted_to_its_targets(declaration: Any, value: Any, wanted: Any) -> None:
    nodes = [make_node(1, "PrimitiveNode", [value, "fixed"]), make_node(2, "C", [], {"x": 1}, ["x"])]
    got = export(make_workflow(nodes, [[1, 1, 0, 2, 0, "*"]]), define("C", {"x": declaration}))["2"]["x"]
    assert json.dumps(got) == json.dumps(wanted)


@pytest.mark.parametrize(("mode", "steps"), [(0, ["1", 0]), (2, 20)])
def test_a_muted_number_leaves_the_value_of_the_widget(mode: int, steps: Any) -> None:
    nodes = [
        make_node(1, "Number", [5], mode=mode),
        make_node(3, "Sample", [1, "fixed", 20, "heun"], {"steps": 2}, ["steps"]),
    ]
    assert export(make_workflow(nodes, [[2, 1, 0, 3, 1, "INT"]]))["3"]["steps"] == steps


def test_links_in_a_circle_are_an_error() -> None:
    nodes = [make_node(n, "Reroute", None, {"": n}, outputs=[{"type": "*"}]) for n in (1, 2)]
    nodes.append(make_node(3, "Show", None, {"any": 3}))
    with pytest.raises(ConfigError, match=r"node 3 \(Show\): input any feeds itself|feeds itself"):
        export(make_workflow(nodes, [[1, 2, 0, 1, 0, "*"], [2, 1, 0, 2, 0, "*"], [3, 1, 0, 3, 0, "*"]]))


# Texts


def encode(text: str, pick: int = 0) -> str:
    return export(make_workflow([make_node(1, "Encode", [text])]), choose=lambda choices: choices[pick])["1"]["text"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a {red|blue} star", "a red star"),
        ("{a|{b|c}}", "a"),
        ("{one}", "one"),
        (r"\{a\|b\}", "{a|b}"),
        ("a // gone\nb /* gone\ntoo */ c", "a \nb  c"),
        ("{a|b", "a"),
        ("http://x", "http:"),
    ],
)
def test_dynamic_prompts(text: str, wanted: str) -> None:
    assert encode(text) == wanted


def test_a_choice_within_a_choice_is_made_as_well() -> None:
    assert encode("{a|{b|c} d}", 1) == "c d"
    assert encode("{a|b}", -1) == "b"


def test_a_choice_is_made_once_however_often_the_prompt_is_made() -> None:
    document = make_workflow([make_node(1, "Encode", ["{" + "|".join(map(str, range(1000))) + "}"])])
    exported = WorkflowExport(document, DEFINITIONS, random.Random(1).choice)
    assert exported.make_prompt() == exported.make_prompt(exported.bypassed)


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [
        ("%Sampler.steps%/x", "20/x"),
        ("%Load.name%", "a_b"),
        ("%Titled.name%", "a_b"),
        ("%Nobody.steps%", "%Nobody.steps%"),
        ("%width%", "%width%"),
        ("%date:yyyy-MM-dd hh:mm:ss%", "2026-03-04 05:06:07"),
        ("%date:dd.MM%", "%date:dd.MM%"),
        ("%date:yy-d-M%", "26-4-3"),
    ],
)
def test_placeholders_in_the_names_of_files(prefix: str, wanted: str) -> None:
    nodes = [
        make_node(1, "SaveImage", [prefix]),
        make_node(2, "Sample", [1, "fixed", 20, "heun"], properties={"Node name for S&R": "Sampler"}),
        make_node(3, "Load", ["a/b"], title="Titled"),
    ]
    got = export(make_workflow(nodes), now=datetime(2026, 3, 4, 5, 6, 7))
    assert got["1"]["filename_prefix"] == wanted


def test_placeholders_stay_where_the_gui_leaves_them() -> None:
    definitions = define("CheckpointSave", {"filename_prefix": ["STRING"]})
    got = export(make_workflow([make_node(1, "CheckpointSave", ["%date:yyyy%"])]), definitions)
    assert got["1"]["filename_prefix"] == "%date:yyyy%"


def test_a_primitive_can_be_told_to_replace_placeholders() -> None:
    nodes = [
        make_node(1, "PrimitiveNode", ["%Load.name%"], properties={"Run widget replace on values": True}),
        make_node(2, "Encode", ["x"], {"text": 1}, ["text"]),
        make_node(3, "Load", ["a/b"]),
    ]
    assert export(make_workflow(nodes, [[1, 1, 0, 2, 0, "STRING"]]))["2"]["text"] == "a_b"


# What is refused


def test_unknown_classes_are_all_named_with_their_packs() -> None:
    nodes = [
        make_node(1, "Lode"),
        make_node(2, "Frobnicate", properties={"cnr_id": "a-pack"}),
        make_node(3, "Frobnicate"),
        make_node(4, "Muted", mode=2),
    ]
    with pytest.raises(ConfigError) as raised:
        export(make_workflow(nodes))
    assert [str(problem) for problem in raised.value.problems] == [
        "node 1 (Lode): 'Lode' is no known node class; did you mean 'Load'?",
        "node 2 (Frobnicate): 'Frobnicate' is no known node class. It is of the pack 'a-pack': install that, and name "
        "its folder: comfyui.custom_nodes=[FOLDER]",
    ]


def test_a_bypassed_node_of_an_unknown_class_passes_on_by_the_types_that_were_saved() -> None:
    unknown = make_node(2, "Unknown", [1], {"a": 1}, mode=4, outputs=[{"type": "CLIP"}])
    unknown["inputs"][0]["type"] = "CLIP"
    nodes = [LOAD, unknown, make_node(3, "Encode", ["x"], {"clip": 2})]
    assert export(make_workflow(nodes, [[1, 1, 1, 2, 0, "CLIP"], [2, 2, 0, 3, 0, "CLIP"]]))["3"]["clip"] == ["1", 1]


@pytest.mark.parametrize("kind", ["workflow>G", "workflow/G"])
def test_group_nodes_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"workflow.G: is a group node.*Open the workflow in ComfyUI's GUI"):
        export(make_workflow([make_node(1, kind)], extra={"groupNodes": {"G": {}}}))
    assert export(make_workflow([], extra={"groupNodes": {"G": {}}})) == {}


def test_values_of_a_live_viewer_are_refused() -> None:
    definitions = define("Load3D", {"model_file": [["none"]], "image": ["LOAD_3D"]})
    with pytest.raises(ConfigError, match=r"node 1 \(Load3D\): Load3D needs a value that only the 3D viewer"):
        export(make_workflow([make_node(1, "Load3D", ["none"])]), definitions)


def test_nothing_that_was_given_is_changed() -> None:
    document = make_workflow([LOAD, patch(2, 4), patch(3, model=3, clip=4)], CHAIN)
    before = json.dumps(document)
    export(document)
    assert json.dumps(document) == before


def test_a_definition_reads_an_entry_of_object_info() -> None:
    info = {"input": {}, "output": ["A", "B"], "output_name": ["first", ""], "display_name": "Title"}
    read = NodeDefinition.read("C", info)
    assert ([output.name for output in read.outputs], read.title) == (["first", "B"], "Title")
