"""Prompts in ComfyUI's API format, with all that its executor does between calls."""

from __future__ import annotations

import json
import sys

import pytest

from pipeline.errors import NodeError, PromptError, RunInterrupted
from pipeline.graph.model import Graph, Link, Node


def make_prompt(**nodes) -> dict:
    """A prompt from `id=("ClassType", {inputs})`."""
    return {name: {"class_type": cls, "inputs": inputs} for name, (cls, inputs) in nodes.items()}


def show(source: str, **nodes) -> dict:
    """A prompt whose only output node `out` shows what `source` gives."""
    return make_prompt(**nodes, out=("ProbeGather", {"values": [source, 0]}))


@pytest.fixture(autouse=True)
def fresh(session):
    session.use_cache("classic")
    session.clear()
    yield
    session.use_cache("classic")


def test_a_prompt_runs_and_says_what_it_showed_also_from_the_cache(session):
    prompt = show("add", add=("ProbeAdd", {"a": "1", "b": 2.0}))
    given = json.loads(json.dumps(prompt))
    first = session.run(prompt)
    assert (first.executed, first.cached, first.ui) == (("add", "out"), (), {"out": {"values": [3]}})
    second = session.run(prompt)
    assert (second.executed, second.cached, second.ui) == ((), ("add", "out"), {"out": {"values": [3]}})
    assert prompt == given


def test_an_output_node_runs_again_for_another_output_folder(session, tmp_path):
    before = session.comfyui.folder_paths.get_output_directory()
    prompt = show("add", add=("ProbeAdd", {"a": 1, "b": 2}))
    session.run(prompt)
    try:
        session.set_output_folder(tmp_path)
        assert session.run(prompt).executed == ("out",)
        assert session.run(prompt).executed == ()
    finally:
        session.comfyui.folder_paths.set_output_directory(before)


def test_targets_choose_outputs(session):
    nodes = {name: ("ProbeState", {"value": index}) for index, name in enumerate("pqr")}
    assert session.run(make_prompt(**nodes), targets=["q", "r"]).executed == ("q", "r")
    with pytest.raises(PromptError) as caught:
        session.run(make_prompt(**nodes), targets=[])
    assert caught.value.error["type"] == "prompt_no_outputs"


def test_a_faulty_output_is_dropped_and_explained_and_the_others_run(session):
    prompt = make_prompt(good=("ProbeState", {}), add=("ProbeAdd", {"a": 1, "b": 500}))
    prompt["good"]["inputs"] = {"value": 1}
    prompt |= show("add")
    execution = session.run(prompt)
    assert execution.executed == ("good",)
    (error,) = execution.node_errors["add"]["errors"]
    assert (error["type"], error["extra_info"]["input_name"]) == ("value_bigger_than_max", "b")
    assert execution.node_errors["add"]["dependent_outputs"] == ["out"]


def test_a_prompt_of_which_nothing_can_run_is_refused_with_comfyuis_codes(session):
    prompt = show("add", add=("ProbeAdd", {"a": "x", "b": -1}))
    with pytest.raises(PromptError) as caught:
        session.run(prompt)
    assert caught.value.error["type"] == "prompt_outputs_failed_validation"
    assert {one["type"] for one in caught.value.node_errors["add"]["errors"]} == {
        "invalid_input_type",
        "value_smaller_than_min",
    }
    with pytest.raises(PromptError, match=r"'KSamplr' is not a node .*; did you mean 'KSampler'\?") as caught:
        session.run(make_prompt(x=("KSamplr", {})))
    assert caught.value.error["type"] == "missing_node_type"
    circle = make_prompt(a=("ProbeAdd", {"a": ["b", 0], "b": 1}), b=("ProbeAdd", {"a": ["a", 0], "b": 1}))
    with pytest.raises(PromptError) as caught:
        session.run(circle | show("a"))
    codes = {one["type"] for node in caught.value.node_errors.values() for one in node["errors"]}
    assert codes == {"dependency_cycle"}


def test_a_chain_longer_than_pythons_stack_is_checked_and_run(session):
    count = 2 * sys.getrecursionlimit()
    chain = {f"n{index}": ("ProbeAdd", {"a": [f"n{index - 1}", 0], "b": 1}) for index in range(1, count)}
    prompt = show(f"n{count - 1}", n0=("ProbeAdd", {"a": 0, "b": 1}), **chain)
    assert session.run(prompt).ui == {"out": {"values": [count]}}


@pytest.mark.parametrize(("which", "ran"), [(0, "one"), (1, "two")])
def test_only_the_lazy_input_that_is_asked_for_is_evaluated(session, which, ran):
    nodes = {name: ("ProbeAdd", {"a": value, "b": 0}) for name, value in {"one": 1, "two": 2}.items()}
    lazy = ("FlowLazy", {"which": which, "a": ["one", 0], "b": ["two", 0]})
    execution = session.run(show("lazy", **nodes, lazy=lazy))
    assert set(execution.executed) == {"lazy", ran, "out"}
    assert execution.ui["out"] == {"values": [which + 1]}


def test_inputs_that_grow_are_lazy_too(session):
    nodes = {name: ("ProbeAdd", {"a": value, "b": 0}) for name, value in {"p": 5, "q": 0, "r": 9}.items()}
    values = {f"values.value{index}": [name, 0] for index, name in enumerate("pqr")}
    execution = session.run(show("sum", **nodes, sum=("FlowSum", values)))
    assert "r" not in execution.executed
    assert execution.ui["out"] == {"values": [5]}


@pytest.mark.parametrize("policy", ["classic", "all", "lru:3", "none"])
def test_a_node_expands_again_and_again(session, policy):
    session.use_cache(policy)
    execution = session.run(show("down", down=("FlowCountdown", {"count": 30})))
    assert execution.ui["out"] == {"values": [465]}
    longer = session.run(show("down", down=("FlowCountdown", {"count": 31})))
    assert longer.ui["out"] == {"values": [496]}
    if policy == "classic":  # the first thirty are known from the last run
        assert len(longer.executed) <= 4


def test_async_nodes_that_expand_name_their_nodes_after_themselves(session):
    nodes = {f"d{wait}": ("FlowCountdown", {"count": 3, "wait": wait}) for wait in (3, 1, 2)}
    shows = {f"o{wait}": ("ProbeGather", {"values": [f"d{wait}", 0]}) for wait in (3, 1, 2)}
    execution = session.run(make_prompt(**nodes, **shows))
    assert {one["values"][0] for one in execution.ui.values()} == {6}
    assert {name.partition(".")[0] for name in execution.executed if name.count(".") == 3} <= set(nodes)


def test_what_fails_in_an_expansion_is_the_error_of_the_node_that_was_submitted(session):
    with pytest.raises(NodeError, match=r"^bad: FlowExpandFail failed: in the ProbeFail that it expanded") as caught:
        session.run(show("bad", bad=("FlowExpandFail", {"class_type": "ProbeFail"})))
    assert caught.value.executed[0] == "bad"
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(NodeError, match=r"'NoSuchNode' is not a node of ComfyUI"):
        session.run(show("bad", bad=("FlowExpandFail", {"class_type": "NoSuchNode"})))


def test_a_v3_node_blocks_silently(session):
    prompt = show("block", block=("FlowBlock", {"value": 1, "block": 1}), other=("ProbeState", {"value": 1}))
    execution = session.run(prompt)
    assert "other" in execution.ui
    assert "out" not in execution.ui
    nodes = {
        "spread": ("ProbeSpread", {"count": 3}),
        "which": ("ProbeV3", {"value": ["spread", 0], "factor": 1}),
        "block": ("FlowBlock", {"value": ["which", 0], "block": ["spread", 0]}),
        "show": ("ProbeState", {"value": ["block", 0]}),
    }
    assert session.run(make_prompt(**nodes)).ui["show"]["value"] == [0]


def test_an_empty_list_calls_what_reads_it_for_no_entry(session):
    nodes = {"spread": ("ProbeSpread", {"count": 0}), "add": ("ProbeAdd", {"a": ["spread", 0], "b": 1})}
    assert session.run(show("add", **nodes)).ui["out"] == {"values": []}


def test_a_blocker_with_a_message_stops_only_what_reads_it(session):
    nodes = {
        "block": ("ProbeBlock", {"message": "not today"}),
        "save": ("PreviewAny", {"source": ["block", 0]}),
        "other": ("ProbeState", {"value": 1}),
    }
    with pytest.raises(NodeError, match="save: PreviewAny failed: ExecutionBlocked: Execution Blocked: not today") as e:
        session.run(make_prompt(**nodes))
    assert "other" in e.value.executed


def test_an_interrupted_run_ends_and_the_next_one_is_not_touched(session):
    nodes = {"stop": ("FlowInterrupt", {"value": 1}), "next": ("ProbeAdd", {"a": ["stop", 0], "b": 1})}
    with pytest.raises(RunInterrupted) as caught:
        session.run(show("next", **nodes))
    assert (caught.value.node, caught.value.executed) == ("next", ("stop", "next"))
    assert session.run(show("a", a=("ProbeAdd", {"a": 1, "b": 1}))).ui["out"] == {"values": [2]}


def test_an_object_keeps_its_state_while_its_node_is_in_the_graph(session):
    def run(value: int) -> int:
        return session.run(make_prompt(x=("ProbeState", {"value": value}))).ui["x"]["calls"][0]

    assert [run(1), run(2), run(2), run(3)] == [1, 2, 2, 3]
    session.run(make_prompt(y=("ProbeState", {"value": 1})))
    assert run(4) == 1
    session.use_cache("none")
    assert session.run(make_prompt(x=("ProbeState", {"value": 4}))).executed == ("x",)


def test_hidden_inputs(session):
    execution = session.run(make_prompt(x=("FlowShow", {"value": 1})), extra_data={"extra_pnginfo": {"workflow": 5}})
    assert execution.ui["x"]["told"] == ["x", ["x"], {"workflow": 5}, False]


def test_undeclared_links_reach_a_function_that_takes_them_and_a_constant_is_still_a_mistake(session):
    one = Node("one", "ProbeAdd", {"a": 1, "b": 0})
    x = Node("x", "ProbeKeywords", {"a": Link("one", 0), "more": Link("one", 0), "most": Link("one", 0)})
    checked = session.check(Graph({"one": one, "x": x}), ["x"])
    assert session.run(checked).outputs["x"].outputs == [[3]]


def test_a_literal_list_that_looks_like_a_link_is_none(session):
    prompt = make_prompt(x=("ProbeEcho", {"value": {"__value__": ["x", 0]}}))
    prompt |= make_prompt(out=("PreviewAny", {"source": ["x", 0]}))
    assert json.loads(session.run(prompt).ui["out"]["text"][0]) == ["x", 0]


def test_lru_keeps_the_outputs_of_several_prompts(session):
    first, second = (show("a", a=("ProbeAdd", {"a": value, "b": 0})) for value in (1, 2))
    session.use_cache("lru:4")
    session.run(first)
    session.run(second)
    assert session.run(first).cached == ("a", "out")
    session.use_cache("lru:2")
    session.run(second)
    assert session.run(first).cached == ()


def test_none_releases_what_nobody_will_read(session):
    import weakref

    import torch

    session.use_cache("none")
    alive = []
    made = []
    original = session._executor.cache.put

    def put(key, outputs, folder=None):
        found = [one for many in outputs.outputs for one in many if isinstance(one, torch.Tensor)]
        made.extend(weakref.ref(one) for one in found)
        original(key, outputs, folder)
        alive.append(sum(ref() is not None for ref in made))

    session._executor.cache.put = put
    try:
        nodes = {
            f"image{index}": ("EmptyImage", {"width": 8, "height": 8, "batch_size": 1, "color": index})
            for index in range(6)
        }
        nodes |= {f"flip{index}": ("ImageInvert", {"image": [f"image{index}", 0]}) for index in range(6)}
        nodes |= {f"show{index}": ("PreviewImage", {"images": [f"flip{index}", 0]}) for index in range(6)}
        assert len(session.run(make_prompt(**nodes)).executed) == 18
    finally:
        del session._executor.cache.put
    assert max(alive) == 2  # a flipped image, and the image it is made of


def test_packs_see_the_prompt_and_ran_their_prestartup_script(session):
    session.run(make_prompt(x=("FlowShow", {"value": 1})))
    (pack,) = [module for name, module in sys.modules.items() if name.endswith("packs/flow")]
    assert pack.PRESTARTED == "done"
    pack.SEEN.clear()
    session.run(make_prompt(x=("FlowShow", {"value": 2})))
    assert pack.SEEN[0]["prompt"]["x"]["inputs"] == {"value": 2}


def test_a_pack_that_fails_is_named_with_its_reason(session):
    with pytest.raises(
        PromptError, match=r"broken \(ModuleNotFoundError: No module named 'a_package_that_nobody_has'\)"
    ):
        session.run(make_prompt(x=("NoSuchNodeAnywhere", {})))
    assert not [name for name in sys.modules if name.endswith("packs/broken")]


def test_all_lets_go_of_what_is_unused_longest_while_memory_is_short(session, monkeypatch):
    from types import SimpleNamespace

    import psutil

    first, second = (show("a", a=("ProbeAdd", {"a": value, "b": 0})) for value in (1, 2))
    session.use_cache("all")
    session.run(first)
    session.run(second)
    assert session.run(first).cached == ("a", "out")
    full = SimpleNamespace(available=2**30, total=2**36)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: full)
    session.run(show("a", a=("ProbeAdd", {"a": 3, "b": 0})))
    monkeypatch.undo()
    assert session.run(first).cached == ()
    assert session.run(first).cached == ("a", "out")


@pytest.mark.parametrize("policy", ["classic", "all", "lru:3"])
def test_a_blocker_with_a_message_fails_again_and_in_every_graph_that_shares_it(session, policy):
    session.use_cache(policy)
    nodes = {
        "block": ("FlowBlock", {"value": 1, "block": 1, "message": "no"}),
        "add": ("ProbeAdd", {"a": ["block", 0], "b": 1}),
    }
    for extra in (1, 1, 2):
        nodes["more"] = ("ProbeAdd", {"a": ["add", 0], "b": extra})
        with pytest.raises(NodeError, match="Execution Blocked: no"):
            session.run(show("more", **nodes))


def test_a_node_that_changes_its_input_changes_no_prompt(session):
    prompt = make_prompt(x=("ProbeAppend", {"values": {"__value__": [1, 2]}}), out=("PreviewAny", {"source": ["x", 0]}))
    for _ in range(2):
        session.clear()
        assert json.loads(session.run(prompt).ui["out"]["text"][0]) == [1, 2, 99]
    assert prompt["x"]["inputs"] == {"values": {"__value__": [1, 2]}}


def test_outputs_that_are_not_wanted_this_time_stay_known(session):
    prompt = make_prompt(a=("ProbeAdd", {"a": 1, "b": 0}), b=("ProbeAdd", {"a": 2, "b": 0}))
    prompt |= make_prompt(p=("ProbeGather", {"values": ["a", 0]}), q=("ProbeGather", {"values": ["b", 0]}))
    session.run(prompt)
    assert session.run(prompt, targets=["p"]).executed == ()
    assert session.run(prompt).executed == ()


def test_nodes_have_no_state_without_a_cache(session):
    session.use_cache("none")
    prompt = make_prompt(state=("ProbeState", {"value": 1}))
    assert session.run(prompt).ui == session.run(prompt).ui


def test_an_output_within_an_expansion_is_shown_from_the_cache_too(session):
    for count in (1, 2):
        execution = session.run(show("x", x=("FlowExpandShow", {"value": 3, "count": count})))
        assert [shown["values"] for name, shown in execution.ui.items() if name != "out"] == [[3]]


def test_a_node_that_asks_for_inputs_is_not_called_for_an_empty_list(session):
    nodes = {"none": ("ProbeSpread", {"count": 0}), "one": ("ProbeAdd", {"a": 1, "b": 0})}
    lazy = ("FlowLazy", {"which": ["none", 0], "a": ["one", 0]})
    assert session.run(show("lazy", **nodes, lazy=lazy)).ui["out"] == {"values": []}
