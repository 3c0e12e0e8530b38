"""Checking and running graphs on the real ComfyUI, in this process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm_python import PYTHON

from pipeline.base.events import NodeFinished, NodeProgress, NodeStarted, RunStarted
from pipeline.engine.comfyui.call import is_blocked
from pipeline.errors import ComfyUIError, ConfigError, NodeError, RunInterrupted
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.reader import read_graph


def make_graph(**nodes) -> Graph:
    """A graph from `name=("ClassType", {inputs})`, links as lists."""
    problems = []
    graph = read_graph({name: {"_node_": cls, **inputs} for name, (cls, inputs) in nodes.items()}, problems)
    assert not problems
    return graph


def evaluate(session, target: str, **nodes):
    """Run and return the only value of the first output of `target`."""
    execution = session.run(session.check(make_graph(**nodes), [target]))
    return execution.outputs[target].outputs[0]


@pytest.fixture
def calls(session):
    session.check(make_graph(a=("ProbeAdd", {"a": 1, "b": 1})), ["a"])
    (pack,) = [module for name, module in sys.modules.items() if name.endswith("packs/probe")]
    session.clear()
    pack.CALLS.clear()
    return pack.CALLS


@pytest.mark.parametrize("class_type", ["ProbeAdd", "ProbeAsync"])
def test_v1_nodes_run(session, class_type):
    assert evaluate(session, "x", x=(class_type, {"a": 2, "b": 3})) == [5]


@pytest.mark.parametrize("class_type", ["ProbeV3", "ProbeV3Async"])
def test_v3_nodes_run_and_get_the_default_of_an_optional_input(session, class_type):
    assert evaluate(session, "x", x=(class_type, {"value": 4})) == [8]
    assert evaluate(session, "x", x=(class_type, {"value": 4, "factor": 3})) == [12]


def test_a_list_output_calls_the_next_node_for_each_entry(session):
    nodes = {
        "spread": ("ProbeSpread", {"count": 3}),
        "add": ("ProbeAdd", {"a": ["spread", 0], "b": 10}),
        "gather": ("ProbeGather", {"values": ["add", "sum"]}),
    }
    execution = session.run(session.check(make_graph(**nodes), ["add"]))
    assert execution.outputs["add"].outputs == [[10, 11, 12]]
    assert execution.outputs["gather"].outputs == [[33]]
    assert execution.outputs["gather"].ui == {"values": [10, 11, 12]}


def test_output_nodes_are_targets_without_being_named(session):
    checked = session.check(
        make_graph(
            s=("ProbeSpread", {"count": 2}), g=("ProbeGather", {"values": ["s", 0]}), x=("ProbeAdd", {"a": 1, "b": 1})
        )
    )
    assert checked.targets == ("g",)
    assert checked.order == ("s", "g")


def test_nothing_runs_twice(session, calls):
    first = session.check(make_graph(a=("ProbeAdd", {"a": 1, "b": 2}), x=("ProbeV3", {"value": ["a", 0]})), ["x"])
    assert session.run(first).executed == ("a", "x")
    again = session.run(first)
    assert (again.executed, again.cached) == ((), ("a", "x"))
    changed = session.check(
        make_graph(a=("ProbeAdd", {"a": 1, "b": 2}), x=("ProbeV3", {"value": ["a", 0], "factor": 5})), ["x"]
    )
    assert session.run(changed).executed == ("x",)
    assert calls == ["ProbeAdd", "ProbeV3", "ProbeV3"]


def test_a_node_of_the_same_content_is_known_under_another_name(session, calls):
    session.run(session.check(make_graph(a=("ProbeAdd", {"a": 1, "b": 2})), ["a"]))
    execution = session.run(session.check(make_graph(other=("ProbeAdd", {"a": 1, "b": 2})), ["other"]))
    assert execution.cached == ("other",)
    twins = session.check(make_graph(p=("ProbeAdd", {"a": 5, "b": 5}), q=("ProbeAdd", {"a": 5, "b": 5})), ["p", "q"])
    execution = session.run(twins)
    assert (execution.executed, execution.cached) == (("p",), ("q",))


def test_outputs_that_the_next_graph_does_not_use_are_released(session, calls):
    session.run(session.check(make_graph(a=("ProbeAdd", {"a": 1, "b": 2})), ["a"]))
    session.run(session.check(make_graph(b=("ProbeAdd", {"a": 7, "b": 7})), ["b"]))
    session.run(session.check(make_graph(a=("ProbeAdd", {"a": 1, "b": 2})), ["a"]))
    assert calls == ["ProbeAdd"] * 3


def test_given_what_is_read_later_nothing_else_stays(session, calls):
    nodes = {"a": ("ProbeAdd", {"a": 1, "b": 2}), "x": ("ProbeV3", {"value": ["a", 0]})}
    checked = session.check(make_graph(**nodes), ["x"])
    keys = session.make_keys(checked)
    session.run(checked, is_read_later=lambda key: key == keys["x"])
    again = session.run(checked, is_read_later=lambda key: key == keys["a"])
    assert (again.executed, again.cached) == ((), ("x",))  # a was let go, and is not needed
    assert session.run(checked).executed == ("a", "x")


def test_a_node_that_says_it_changed_always_runs(session, calls):
    checked = session.check(make_graph(a=("ProbeChanging", {"a": 1, "b": 2})), ["a"])
    session.run(checked)
    assert session.run(checked).executed == ("a",)


def test_a_replaced_model_file_is_noticed(session, tmp_path):
    from safetensors.torch import load_file

    name = "replaced.safetensors"
    folder = Path(session.comfyui.model_folders["loras"][0])
    folder.mkdir(parents=True, exist_ok=True)
    source = session.comfyui.folder_paths.get_full_path("loras", "tiny_qwen_image_lora.safetensors")
    (folder / name).write_bytes(Path(source).read_bytes())
    try:
        nodes = {
            "unet": ("UNETLoader", {"unet_name": "tiny_qwen_image_fp8_e4m3fn.safetensors", "weight_dtype": "default"}),
            "lora": ("LoraLoaderModelOnly", {"model": ["unet", 0], "lora_name": name, "strength_model": 1.0}),
        }
        checked = session.check(make_graph(**nodes), ["lora"])
        assert "lora" in session.run(checked).executed
        assert session.run(checked).executed == ()
        assert load_file(folder / name)
        os.utime(folder / name, ns=(1, 1))
        assert session.run(checked).executed == ("lora",)
    finally:
        (folder / name).unlink()


def test_a_replaced_file_is_noticed_also_among_other_choices(session):
    folder = Path(session.comfyui.model_folders["loras"][0])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "chosen.safetensors").write_bytes(b"one")
        checked = session.check(make_graph(x=("ProbeChoice", {"name": "chosen.safetensors"})), ["x"])
        assert session.run(checked).executed == ("x",)
        assert session.run(checked).executed == ()
        (folder / "chosen.safetensors").write_bytes(b"another")
        assert session.run(checked).executed == ("x",)
    finally:
        (folder / "chosen.safetensors").unlink()


def test_savers_write_into_the_folder_of_each_run(session, tmp_path):
    nodes = {
        "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "save": ("SaveLatent", {"samples": ["latent", 0], "filename_prefix": "saved"}),
    }
    checked = session.check(make_graph(**nodes))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        session.set_output_folder(tmp_path / name)
        assert "save" in session.run(checked).executed
        assert [path.name for path in (tmp_path / name).iterdir()] == ["saved_00001_.latent"]


def test_a_node_that_asks_for_its_name_is_not_mistaken_for_another(session):
    execution = session.run(session.check(make_graph(x=("ProbeName", {}), y=("ProbeName", {})), ["x", "y"]))
    assert [execution.outputs[name].outputs for name in ("x", "y")] == [[["x"]], [["y"]]]


def test_a_blocker_with_a_message_is_an_error_and_a_silent_one_is_passed_on(session):
    def run(message: str):
        nodes = {
            "block": ("ProbeBlock", {"message": message}),
            "scaled": ("LatentUpscaleBy", {"samples": ["block", 0], "upscale_method": "area", "scale_by": 2.0}),
        }
        return session.run(session.check(make_graph(**nodes), ["scaled"]))

    with pytest.raises(
        NodeError, match="scaled: LatentUpscaleBy failed: ExecutionBlocked: Execution Blocked: not today"
    ):
        run("not today")
    assert is_blocked(run("").outputs["scaled"].outputs[0][0])


@pytest.mark.parametrize("end", ["fails", "is interrupted", "begins again"])
def test_a_blocker_with_a_message_is_an_error_of_the_next_run_too_however_a_run_ends(session, end):
    session.clear()
    session._executor._changers.clear()
    ends = {
        "fails": ("ProbeFail", {"value": 3, "text": "x"}),
        "is interrupted": ("ProbeAdd", {"a": 3, "b": 1}),
        "begins again": ("ProbeMean", {"image": ["image", 0], "factor": 1.0}),
    }
    nodes = {
        "block": ("ProbeBlock", {"message": "not today"}),
        "scaled": ("LatentUpscaleBy", {"samples": ["block", 0], "upscale_method": "area", "scale_by": 2.0}),
        "image": ("ProbeImage", {"size": 8}),
        "mut": ("ProbeMultiply", {"image": ["image", 0], "factor": 0.5}),
    }

    def listen(event):
        if end == "is interrupted" and isinstance(event, NodeStarted) and event.node == "end":
            session.interrupt()

    def run(end, listen=lambda event: None):
        graph = make_graph(**nodes, end=end)
        return session.run(session.check(graph, ["scaled", "mut", "end"]), listen)

    try:
        run(ends[end], listen)
    except (NodeError, RunInterrupted):
        pass
    else:
        pytest.fail("the blocked node is an error")
    with pytest.raises(NodeError, match="scaled: LatentUpscaleBy failed: ExecutionBlocked"):
        run(("ProbeAdd", {"a": 7, "b": 1}))


def test_async_nodes_of_one_content_run_once(session):
    session.clear()
    graph = make_graph(a=("ProbeAsync", {"a": 41, "b": 1}), b=("ProbeAsync", {"a": 41, "b": 1}))
    execution = session.run(session.check(graph, ["a", "b"]))
    assert len(execution.executed) == 1
    assert [execution.outputs[name].outputs for name in "ab"] == [[[42]], [[42]]]


def test_outputs_of_other_surroundings_are_not_reused(session):
    graph = session.check(make_graph(a=("ProbeAdd", {"a": 51, "b": 1})), ["a"])
    executed = []
    for threads in ("2", "2", "1"):
        session.note_surroundings({"torch.threads": threads})
        executed.append(session.run(graph).executed)
    assert executed == [("a",), (), ("a",)]


def test_packs_may_take_inputs_of_any_name_and_constants_of_their_own_types(session):
    assert evaluate(session, "x", x=("ProbeLoose", {"a": 1, "b": 2, "any_01": 10})) == [13]
    with pytest.raises(ConfigError, match=r"x\.model: needs a link to a MODEL, got 5"):
        session.check(make_graph(x=("LoraLoaderModelOnly", {"model": 5, "lora_name": "x", "strength_model": 1})), ["x"])


def test_an_interrupted_async_node_does_not_go_on_in_the_next_run(session, monkeypatch):
    def interrupt(event):
        if isinstance(event, NodeStarted):
            session._loop.loop.call_later(0.001, lambda: (_ for _ in ()).throw(KeyboardInterrupt))

    with pytest.raises(KeyboardInterrupt):
        session.run(session.check(make_graph(a=("ProbeAsync", {"a": 31, "b": 1})), ["a"]), interrupt)
    assert not asyncio.all_tasks(session._loop.loop)
    assert evaluate(session, "x", x=("ProbeAsync", {"a": 20, "b": 4})) == [24]


def test_events_tell_what_happens_in_order(session, calls):
    heard = []
    checked = session.check(make_graph(a=("ProbeAdd", {"a": 1, "b": 2}), x=("ProbeV3", {"value": ["a", 0]})), ["x"])
    session.run(checked, heard.append)
    assert heard[0] == RunStarted(order=("a", "x"), cached=())
    assert [type(event) for event in heard[1:]] == [NodeStarted, NodeFinished] * 2
    assert [event.node for event in heard[1:]] == ["a", "a", "x", "x"]
    heard.clear()
    session.run(checked, heard.append)
    assert heard == [RunStarted(order=("a", "x"), cached=("a", "x"))]


def test_every_sampling_step_is_an_event(session, sampling_nodes):
    heard = []
    session.run(session.check(sampling_nodes(steps=3, seed=5), ["sampler"]), heard.append)
    steps = [event for event in heard if isinstance(event, NodeProgress) and event.node == "sampler"]
    assert [(event.value, event.total) for event in steps] == [(1, 3), (2, 3), (3, 3)]


def test_a_failing_node_is_named_with_its_inputs(session):
    nodes = {"a": ("ProbeAdd", {"a": 1, "b": 2}), "bad": ("ProbeFail", {"value": ["a", 0], "text": "hello"})}
    with pytest.raises(NodeError, match=r"^bad: ProbeFail failed: RuntimeError: this probe always fails") as caught:
        session.run(session.check(make_graph(**nodes), ["bad"]))
    assert caught.value.inputs == {"value": "3", "text": "'hello'"}
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert evaluate(session, "a", a=("ProbeAdd", {"a": 1, "b": 2})) == [3]  # the session goes on working


def test_a_run_that_ran_out_of_memory_is_tried_once_more(session, calls, caplog):
    assert evaluate(session, "x", x=("ProbeOutOfMemory", {"a": 1, "b": 5})) == [5]
    assert calls == ["ProbeOutOfMemory"] * 2
    assert "tried once more" in caplog.text
    calls.clear()
    with pytest.raises(NodeError, match="no memory is left"):
        evaluate(session, "x", x=("ProbeOutOfMemory", {"a": 2, "b": 6}))


def test_the_class_judges_its_own_inputs(session):
    assert session.check(make_graph(x=("ProbeJudge", {"a": 12, "b": 0})), ["x"])  # above max, which it overrules
    with pytest.raises(ConfigError) as caught:
        session.check(make_graph(x=("ProbeJudge", {"a": 3, "b": 0}), y=("ProbeAdd", {"a": 1, "b": 500})), ["x", "y"])
    assert [str(problem) for problem in caught.value.problems] == [
        "x.a: must be even",
        "y.b: must be at most 100, got 500",
    ]
    assert [problem.code for problem in caught.value.problems] == ["custom_validation_failed", "value_bigger_than_max"]


def test_a_class_may_judge_the_types_of_its_links(session):
    nodes = {"n": ("ProbeAdd", {"a": 1, "b": 1}), "x": ("ProbeTyped", {"a": ["n", 0], "b": 1})}
    assert session.check(make_graph(**nodes), ["x"])
    for source, message in {
        "LatentgridLoadConditioning": "x: a must be INT, got CONDITIONING",
        "LatentgridLoadLatent": "x: ProbeTyped's own validation raised ValueError: no idea what to do with a latent",
    }.items():
        wrong = make_graph(n=(source, {"path": "missing.pt"}), x=("ProbeTyped", {"a": ["n", 0], "b": 1}))
        with pytest.raises(ConfigError) as caught:
            session.check(wrong, ["x"])
        assert message in map(str, caught.value.problems)


@pytest.mark.parametrize("value", [[3, 4], ["n", "o", "p"], {"x": 1}, "text", 2.5, True])
def test_a_constant_reaches_its_node_as_it_is(session, value):
    wrapped = {"__value__": value} if isinstance(value, list | dict) else value
    assert evaluate(session, "x", x=("ProbeEcho", {"value": wrapped})) == [value]


def test_an_unknown_class_type_gets_a_did_you_mean(session):
    with pytest.raises(ConfigError, match=r"x\._node_: 'KSamplr' is not a node .*; did you mean 'KSampler'\?"):
        session.check(make_graph(x=("KSamplr", {})), ["x"])


def test_a_node_of_comfy_extras_is_found_by_its_name(session):
    execution = session.run(
        session.check(make_graph(x=("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": "-"})), ["x"])
    )
    assert execution.outputs["x"].outputs == [["a-b"]]


def test_missing_models_are_named_with_their_folder(session, sampling_nodes):
    graph = sampling_nodes()
    lora = graph["lora"]
    changed = Graph(
        {
            **graph,
            "lora": Node("lora", lora.class_type, {**lora.inputs, "lora_name": "tiny_qwen_image_lor.safetensors"}),
        }
    )
    with pytest.raises(ConfigError) as caught:
        session.check(changed, ["sampler"])
    assert str(caught.value) == (
        "lora.lora_name: 'tiny_qwen_image_lor.safetensors' is not in models/loras; "
        "did you mean 'tiny_qwen_image_lora.safetensors'?"
    )


def test_a_session_works_inside_a_running_loop(session):
    async def notebook():
        return evaluate(session, "x", x=("ProbeAsync", {"a": 20, "b": 3}))

    assert asyncio.run(notebook()) == [23]


def test_a_process_runs_one_comfyui_only(session):
    from dataclasses import replace

    from pipeline.engine.comfyui.start import start_comfyui

    with pytest.raises(ComfyUIError, match=r"device was 'auto', now 'cpu'.*Use a new process"):
        start_comfyui(replace(session.comfyui.settings, device="cpu"))


def test_starting_comfyui_leaves_the_root_logger_alone(environment, comfyui_path):
    code = (
        "import logging; from pipeline.engine.comfyui.start import start_comfyui;"
        "from pipeline.engine.comfyui.settings import ComfyUISettings;"
        f"start_comfyui(ComfyUISettings(path={str(comfyui_path)!r}));"
        "import sys; assert not logging.root.handlers, logging.root.handlers;"
        "assert 'server' in sys.modules and 'aiohttp' not in sys.modules;"
        "assert 'main' not in sys.modules"
    )
    subprocess.run([PYTHON, "-c", code], check=True, env=environment)


@pytest.mark.parametrize("class_type", ["ImageBlend", "LatentBatch"])  # of the two modules that import each other
def test_a_module_is_imported_alone_too(environment, comfyui_path, class_type):
    code = (
        "from pipeline.engine.comfyui.start import start_comfyui;"
        "from pipeline.engine.comfyui.settings import ComfyUISettings;"
        "from pipeline.engine.session import Session; from pipeline.errors import PromptError\n"
        f"session = Session(start_comfyui(ComfyUISettings(path={str(comfyui_path)!r})))\n"
        f"try: session.check_prompt({{'x': {{'class_type': {class_type!r}, 'inputs': {{}}}}}})\n"
        "except PromptError as error: assert error.error['type'] == 'prompt_no_outputs', error\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_links_of_a_checked_graph_are_indices(session, sampling_nodes):
    checked = session.check(sampling_nodes(), ["sampler"])
    links = [link for node in checked.graph.values() for _, link in node.links]
    assert Link("cfg_norm", 0) in links
    assert all(isinstance(link.output, int) for link in links)
