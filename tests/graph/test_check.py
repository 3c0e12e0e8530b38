"""The check of a whole graph: the sampling graph, with signatures as ComfyUI's classes declare them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, CycleError, Problem
from pipeline.graph.check import CheckedGraph, check_graph
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.reader import read_graph
from pipeline.graph.signature import Signature, read_inputs, read_outputs, types_match

LORAS = ["Qwen-Image-Lightning-4steps-V2.0.safetensors", "anime.safetensors"]


def make_class(class_type: str, outputs: str = "", names: str = "", **more: Any) -> Signature:
    declared = {part: more.pop(part, {}) for part in ("required", "optional")}
    inputs = read_inputs(declared, {"loras": LORAS})
    return Signature(class_type, inputs, read_outputs(outputs.split(), names.split()), **more)


CLASSES = {
    one.class_type: one
    for one in [
        make_class("UNETLoader", "MODEL", required={"unet_name": (["qwen.safetensors", "wan.safetensors"],)}),
        make_class(
            "LoraLoaderModelOnly",
            "MODEL",
            required={"model": ("MODEL",), "lora_name": (LORAS,), "strength_model": ("FLOAT", {"min": -100.0})},
        ),
        make_class(
            "CFGNorm",
            "MODEL",
            "patched_model",
            required={"model": ("MODEL",), "strength": ("FLOAT", {"default": 1.0})},
            optional={"pre_cfg": ("BOOLEAN", {"default": False}), "vae": ("VAE",)},
        ),
        make_class("LoadConditioning", "CONDITIONING", required={"path": ("STRING",)}),
        make_class("EmptyLatent", "LATENT", required={"width": ("INT", {"min": 16, "max": 16384})}),
        make_class(
            "KSampler",
            "LATENT",
            required={
                "model": ("MODEL",),
                "seed": ("INT", {"min": 0}),
                "steps": ("INT", {"min": 1, "max": 10000}),
                "cfg": ("FLOAT", {"min": 0.0, "max": 100.0}),
                "scheduler": (["simple", "normal", "karras"],),
                "positive": ("CONDITIONING",),
                "latent_image": ("LATENT",),
            },
        ),
        make_class("SaveLatent", required={"samples": ("LATENT",)}, is_output_node=True),
        make_class("Twins", "LATENT LATENT", "high low", required={"samples": ("LATENT",)}),
        make_class("Any", "*", required={"any": ("*",)}),
        make_class("Open", "MODEL", takes_any_input=True),
        make_class(
            "Judge",
            "LATENT",
            required={"steps": ("INT", {"min": 1}), "choice": (["a"],)},
            optional={"samples": ("LATENT",)},
            checks_itself=frozenset({"steps", "choice", "input_types"}),
        ),
    ]
}

CONFIG: dict[str, dict[str, Any]] = {
    "unet": {"_node_": "UNETLoader", "unet_name": "qwen.safetensors"},
    "lora": {
        "_node_": "LoraLoaderModelOnly",
        "model": ["unet", "MODEL"],
        "lora_name": LORAS[0],
        "strength_model": 1,
    },
    "cfg_norm": {"_node_": "CFGNorm", "model": ["lora", "MODEL"], "strength": 1.0},
    "positive": {"_node_": "LoadConditioning", "path": "p.pt"},
    "latent": {"_node_": "EmptyLatent", "width": 64},
    "sampler": {
        "_node_": "KSampler",
        "model": ["cfg_norm", "MODEL"],
        "positive": ["positive", "CONDITIONING"],
        "latent_image": ["latent", 0],
        "seed": "42",
        "steps": 4,
        "cfg": 1,
        "scheduler": "simple",
    },
}
REFINE = {**CONFIG["sampler"], "latent_image": ["sampler", "LATENT"]}


def check_config(
    changes: dict[str, Any], wanted: Sequence[str] = ("sampler",), config: dict[str, Any] = CONFIG, **more: Any
) -> CheckedGraph:
    """Check `config` with `changes` (`{"sampler.steps": 0}`; a whole node under its name), as a session does."""
    changed = copy.deepcopy(config)
    for path, value in changes.items():
        node, _, key = path.partition(".")
        if key:
            changed[node][key] = value
        else:
            changed[node] = value
    problems: list[Problem] = []
    graph = read_graph(changed, problems)
    signatures = {name: CLASSES[node.class_type] for name, node in graph.items() if node.class_type in CLASSES}
    problems.extend(
        Problem("missing_node_type", f"{name}._node_", f"{node.class_type!r} is not a node")
        for name, node in graph.items()
        if name not in signatures
    )
    return check_graph(graph, signatures, wanted, problems, **more)


def find_problems(changes: dict[str, Any], wanted: Sequence[str] = ("sampler",)) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_config(changes, wanted)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


# A graph that can run


def test_a_checked_graph_has_links_by_index_and_constants_of_the_right_type() -> None:
    checked = check_config({})
    assert sorted(checked.order) == sorted(CONFIG)
    assert checked.order[-1] == "sampler"
    assert checked.targets == ("sampler",)
    assert list(checked.graph) == list(CONFIG)
    assert checked.graph["sampler"] == Node(
        "sampler",
        "KSampler",
        {
            "model": Link("cfg_norm", 0),
            "seed": 42,
            "steps": 4,
            "cfg": 1.0,
            "scheduler": "simple",
            "positive": Link("positive", 0),
            "latent_image": Link("latent", 0),
        },
    )
    assert {type(checked.graph["sampler"].inputs[name]) for name in ("seed", "steps")} == {int}
    assert type(checked.graph["sampler"].inputs["cfg"]) is float
    assert type(checked.graph["lora"].inputs["strength_model"]) is float
    assert dict(checked.signatures) == {name: CLASSES[section["_node_"]] for name, section in CONFIG.items()}


def test_an_optional_input_that_is_not_given_takes_its_default_and_a_required_one_does_not() -> None:
    checked = check_config({})
    assert checked.graph["cfg_norm"].inputs == {"model": Link("lora", 0), "strength": 1.0, "pre_cfg": False}
    assert checked.filled == {"cfg_norm.pre_cfg"}
    assert check_config({"cfg_norm.pre_cfg": True}).filled == frozenset()
    assert check_config({"cfg_norm.pre_cfg": True}).graph["cfg_norm"].inputs["pre_cfg"] is True
    assert find_problems({"cfg_norm.strength": None}) == [
        "cfg_norm.strength: is required and not given. Give it as cfg_norm.strength=VALUE"
    ]


def test_the_given_graph_is_left_as_it_is() -> None:
    problems: list[Problem] = []
    graph = read_graph(CONFIG, problems)
    before = repr(list(graph.items()))
    check_graph(graph, {name: CLASSES[node.class_type] for name, node in graph.items()}, ["sampler"], problems)
    assert repr(list(graph.items())) == before
    assert problems == []


@pytest.mark.parametrize(
    ("changes", "wanted", "targets", "order"),
    [
        ({}, ["sampler", "lora"], "lora sampler", None),
        ({}, ["lora"], "lora", "unet lora"),
        ({}, ["lora", "lora"], "lora", "unet lora"),
        ({"save": {"_node_": "SaveLatent", "samples": ["latent", 0]}}, [], "save", "latent save"),
        ({"save": {"_node_": "SaveLatent", "samples": ["latent", 0]}}, ["unet"], "unet save", "unet latent save"),
        (
            {"save": {"_node_": "SaveLatent", "_bypass_": True, "samples": ["latent", 0]}},
            ["unet"],
            "unet",
            "unet",
        ),
        ({"lora._bypass_": True, "cfg_norm._bypass_": True}, ["cfg_norm", "unet"], None, None),
    ],
)
def test_what_runs_is_what_the_wanted_nodes_and_the_output_nodes_need(
    changes: dict[str, Any], wanted: list[str], targets: str | None, order: str | None
) -> None:
    if targets is None:
        assert find_problems(changes, wanted) == ["run.outputs: 'cfg_norm' is bypassed, so it has no output to keep"]
        return
    checked = check_config(changes, wanted)
    assert checked.targets == tuple(targets.split())
    assert order is None or checked.order == tuple(order.split())
    assert set(checked.order) == set(checked.graph) <= set(checked.signatures) == set(checked.declared)


# Messages: each fault by itself

MORE = {
    "save": {"_node_": "SaveLatent", "samples": ["sampler", 0]},
    "twins": {"_node_": "Twins", "samples": ["latent", "LATENT"]},
    "any": {"_node_": "Any", "any": 5},
    "judge": {"_node_": "Judge", "steps": 1, "choice": "a"},
    "open": {"_node_": "Open"},
}


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"sampler.steps": 0}, "value_smaller_than_min", "sampler.steps: must be at least 1, got 0"),
        ({"sampler.cfg": 101}, "value_bigger_than_max", "sampler.cfg: must be at most 100.0, got 101.0"),
        ({"sampler.steps": 8.7}, "invalid_input_type", "sampler.steps: must be a whole number, got 8.7"),
        (
            {"sampler.scheduler": "karas"},
            "value_not_in_list",
            "sampler.scheduler: 'karas' is not a scheduler of KSampler; did you mean 'karras'?",
        ),
        (
            {"lora.lora_name": "Qwen-Lightning.safetensors"},
            "value_not_in_list",
            "lora.lora_name: 'Qwen-Lightning.safetensors' is not in models/loras; "
            "did you mean 'Qwen-Image-Lightning-4steps-V2.0.safetensors'?",
        ),
        (
            {"sampler.model": ["positive", "CONDITIONING"]},
            "return_type_mismatch",
            "sampler.model: needs MODEL, but [positive, CONDITIONING] is CONDITIONING",
        ),
        (
            {"sampler.positive": ["cfg_norm", 0]},
            "return_type_mismatch",
            "sampler.positive: needs CONDITIONING, but [cfg_norm, patched_model] is MODEL",
        ),
        (
            {"sampler.steps": ["latent", 0]},
            "return_type_mismatch",
            "sampler.steps: needs INT, but [latent, LATENT] is LATENT",
        ),
        (
            {"sampler.model": None},
            "required_input_missing",
            "sampler.model: is required and not given. Link it: sampler.model=[NODE,MODEL]",
        ),
        (
            {"sampler.steps": None},
            "required_input_missing",
            "sampler.steps: is required and not given. Give it as sampler.steps=VALUE",
        ),
        (
            {"positive.path": "???"},
            "required_input_missing",
            "positive.path: is required and not given. Give it as positive.path=VALUE",
        ),
        (
            {"sampler.model": "qwen"},
            "invalid_input_type",
            "sampler.model: needs a link to a MODEL, got 'qwen'. Link it: sampler.model=[NODE,MODEL]",
        ),
        (
            {"sampler.stpes": 4},
            "unknown_input",
            "sampler.stpes: KSampler has no input 'stpes'; did you mean 'steps'?",
        ),
        (
            {"latent.zzz": 4},
            "unknown_input",
            "latent.zzz: EmptyLatent has no input 'zzz'. Its inputs are width",
        ),
        (
            {"latent.zzz": ["unet", 0]},
            "unknown_input",
            "latent.zzz: EmptyLatent has no input 'zzz'. Its inputs are width",
        ),
        (
            {"sampler.model": ["cfg_norm", "MODLE"]},
            "bad_linked_input",
            "sampler.model: CFGNorm (cfg_norm) has no output 'MODLE'; did you mean 'MODEL'?",
        ),
        (
            {"sampler.model": ["cfg_norm", "xyz"]},
            "bad_linked_input",
            "sampler.model: CFGNorm (cfg_norm) has no output 'xyz'. Its outputs are 0: patched_model",
        ),
        (
            {"sampler.model": ["cfg_norm", 1]},
            "bad_linked_input",
            "sampler.model: CFGNorm (cfg_norm) has no output 1. Its outputs are 0: patched_model",
        ),
        (
            {"sampler.latent_image": ["twins", "LATENT"]},
            "bad_linked_input",
            "sampler.latent_image: Twins (twins) has more than one output of type LATENT. "
            "Its outputs are 0: high, 1: low",
        ),
        (
            {"sampler.latent_image": ["save", "LATENT"]},
            "bad_linked_input",
            "sampler.latent_image: SaveLatent (save) has no output at all",
        ),
        (
            {"sampler.model": ["lroa", "MODEL"]},
            "bad_linked_input",
            "sampler.model: [lroa, MODEL] names no node of the graph; did you mean 'lora'?",
        ),
        (
            {"lora._bypass_": "yes"},
            "invalid_input_type",
            "lora._bypass_: must be true or false, got 'yes'",
        ),
    ],
)
def test_what_is_wrong_is_said_once_and_in_full(changes: dict[str, Any], code: str, message: str) -> None:
    config = {**CONFIG, **MORE}
    with pytest.raises(ConfigError) as caught:
        check_config(changes, ["sampler", "latent"], config)
    assert [(problem.code, str(problem)) for problem in caught.value.problems] == [(code, message)]
    assert type(caught.value) is ConfigError


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler.latent_image": ["twins", "low"]},
        {"sampler.latent_image": ["twins", 1]},
        {"any.any": ["unet", 0], "sampler.model": ["any", 0]},
        {"any.any": [], "sampler.model": ["any", "*"], "any": {"_node_": "Any", "any": {"__value__": []}}},
        {"open.whatever": 5, "open.more": ["unet", 0], "sampler.model": ["open", 0]},
        # inputs that the class judges itself, and types of links if it asks for them
        {"judge.steps": 0, "judge.choice": "z", "judge.samples": ["unet", 0], "sampler.latent_image": ["judge", 0]},
    ],
)
def test_what_is_right_is_not_complained_about(changes: dict[str, Any]) -> None:
    checked = check_config(changes, config={**CONFIG, **MORE})
    assert checked.targets == ("sampler", "save")
    assert {path.partition(".")[0] for path in changes} <= set(checked.order)


def test_undeclared_inputs_of_a_class_that_takes_any_are_kept_with_their_links_by_index() -> None:
    changes = {"open.whatever": 5, "open.more": ["unet", "MODEL"], "sampler.model": ["open", 0]}
    checked = check_config(changes, config={**CONFIG, **MORE})
    assert checked.graph["open"].inputs == {"whatever": 5, "more": Link("unet", 0)}


# Outputs that are wanted


@pytest.mark.parametrize(
    ("changes", "wanted", "messages"),
    [
        ({}, ["smapler"], ["run.outputs: 'smapler' is not a node of the graph; did you mean 'sampler'?"]),
        ({}, ["sampler", "xyz"], ["run.outputs: 'xyz' is not a node of the graph"]),
        (
            {"lora._bypass_": True},
            ["lora"],
            ["run.outputs: 'lora' is bypassed, so it has no output to keep"],
        ),
        (
            {},
            [],
            ["run.outputs: is empty and the graph has no output node. Name the nodes to keep: run.outputs=[NODE]"],
        ),
    ],
)
def test_outputs_that_cannot_be_kept(changes: dict[str, Any], wanted: list[str], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(changes, wanted)
    assert [str(problem) for problem in caught.value.problems] == messages
    assert {problem.code for problem in caught.value.problems} == {"prompt_no_outputs"}


def test_an_empty_graph_says_so() -> None:
    with pytest.raises(ConfigError, match=r"run\.outputs: is empty"):
        check_graph(Graph(), {})


# All at once


def test_all_problems_are_in_one_message_in_the_order_of_the_config() -> None:
    assert find_problems(
        {
            "unet.unet_name": "xyz",
            "lora.lora_name": "Qwen-Lightning.safetensors",
            "lora.strength_model": -200,
            "positive.path": "???",
            "latent.width": 8,
            "sampler.steps": 0,
            "sampler.scheduler": "karas",
            "sampler.model": ["positive", "CONDITIONING"],
            "sampler.latent_image": ["latent", 3],
        }
    ) == [
        "unet.unet_name: 'xyz' is not a unet_name of UNETLoader. Choose from qwen.safetensors, wan.safetensors",
        "lora.lora_name: 'Qwen-Lightning.safetensors' is not in models/loras; "
        "did you mean 'Qwen-Image-Lightning-4steps-V2.0.safetensors'?",
        "lora.strength_model: must be at least -100.0, got -200.0",
        "positive.path: is required and not given. Give it as positive.path=VALUE",
        "latent.width: must be at least 16, got 8",
        "sampler.latent_image: EmptyLatent (latent) has no output 3. Its outputs are 0: LATENT",
        "sampler.model: needs MODEL, but [positive, CONDITIONING] is CONDITIONING",
        "sampler.steps: must be at least 1, got 0",
        "sampler.scheduler: 'karas' is not a scheduler of KSampler; did you mean 'karras'?",
    ]


def test_problems_of_unknown_nodes_stand_in_the_order_of_the_config_too() -> None:
    assert find_problems({"unet.unet_name": "xyz", "cfg_norm._node_": "CFGNrom", "sampler.steps": 0}) == [
        "unet.unet_name: 'xyz' is not a unet_name of UNETLoader. Choose from qwen.safetensors, wan.safetensors",
        "cfg_norm._node_: 'CFGNrom' is not a node",
        "sampler.steps: must be at least 1, got 0",
    ]


def test_what_was_found_before_comes_with_the_rest_and_settings_come_first() -> None:
    before = Problem("unknown_section", "smapler", "is neither a node nor a settings section")
    graph = read_graph({"latent": {"_node_": "EmptyLatent", "width": 1}}, [])
    with pytest.raises(ConfigError) as caught:
        check_graph(graph, {"latent": CLASSES["EmptyLatent"]}, ["latent"], [before])
    assert [problem.where for problem in caught.value.problems] == ["smapler", "latent.width"]


@pytest.mark.parametrize(
    "changes",
    [
        {"unet._node_": "UNETLoadre"},  # feeds a node that is needed
        {"lora._node_": "LoraLoadre"},
        {"sampler._node_": "KSamplre"},  # is wanted itself
        {"unet._node_": "UNETLoadre", "lora._node_": "LoraLoadre", "positive._node_": "Load"},
    ],
)
def test_a_needed_node_of_an_unknown_class_is_the_only_thing_reported(changes: dict[str, Any]) -> None:
    assert find_problems(changes) == [f"{path}: {kind!r} is not a node" for path, kind in changes.items()]


def test_a_needed_node_without_a_class_type_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"^unet\._node_: must be a ComfyUI class_type, got None"):
        check_config({"unet._node_": None})


@pytest.mark.parametrize("bypassed", [["lora"], ["lora", "cfg_norm"]])
def test_a_bypass_is_not_blamed_for_an_unknown_class_before_it(bypassed: list[str]) -> None:
    bypasses = {f"{name}._bypass_": True for name in bypassed}
    assert find_problems({"unet._node_": "UNETLoadre", **bypasses}) == ["unet._node_: 'UNETLoadre' is not a node"]


@pytest.mark.parametrize("bypassed", [["lora"], ["lora", "cfg_norm"]])
def test_a_bypassed_node_of_an_unknown_class_is_reported_since_nobody_knows_what_it_passes_on(
    bypassed: list[str],
) -> None:
    bypasses = {f"{name}._bypass_": True for name in bypassed}
    assert find_problems({"lora._node_": "LoraLoadre", **bypasses}) == ["lora._node_: 'LoraLoadre' is not a node"]


@pytest.mark.parametrize(
    "unneeded",
    [
        {"other": {"_node_": "Nonsense"}},
        {"other": {"_node_": "KSampler", "steps": 0, "model": ["nowhere", 0]}},
        {"other": {"_node_": "SaveLatent", "_bypass_": True, "samples": 5}},
        {"one": {"_node_": "Any", "any": ["two", 0]}, "two": {"_node_": "Any", "any": ["one", 0]}},
    ],
)
def test_what_is_wrong_with_a_node_that_nothing_needs_stands_in_nobodys_way(unneeded: dict[str, Any]) -> None:
    assert set(check_config(unneeded).order) == set(CONFIG)


def test_but_it_is_reported_when_there_is_a_problem_that_matters() -> None:
    """A wrong link may be why it looks unneeded."""
    changes = {
        "latent.width": 8,
        "sampler.latent_image": ["latnt", 0],
        "sampler.model": ["lora", "MOEDL"],
        "lora.strength_model": "strong",
        "one": {"_node_": "Any", "any": ["two", 0]},
        "two": {"_node_": "Any", "any": ["one", 0]},
    }
    assert find_problems(changes) == [
        "graph has a cycle: one -> two -> one",
        "lora.strength_model: must be a number, got 'strong'",
        "latent.width: must be at least 16, got 8",
        "sampler.latent_image: [latnt, 0] names no node of the graph; did you mean 'latent'?",
        "sampler.model: LoraLoaderModelOnly (lora) has no output 'MOEDL'; did you mean 'MODEL'?",
    ]


# Cycles


def test_a_cycle_is_an_error_of_its_own() -> None:
    with pytest.raises(CycleError) as caught:
        check_config({"sampler.latent_image": ["refine", "LATENT"], "refine": REFINE})
    assert str(caught.value) == "graph has a cycle: sampler -> refine -> sampler"
    assert caught.value.nodes == ("sampler", "refine", "sampler")
    assert [problem.code for problem in caught.value.problems] == ["dependency_cycle"]


def test_a_cycle_among_other_problems_is_one_of_them() -> None:
    changes = {"sampler.latent_image": ["refine", "LATENT"], "refine": REFINE, "unet.unet_name": "xyz"}
    with pytest.raises(ConfigError) as caught:
        check_config(changes)
    assert type(caught.value) is ConfigError
    assert [problem.where for problem in caught.value.problems] == ["graph has a cycle", "unet.unet_name"]


def test_a_bypass_can_break_a_cycle_or_be_one() -> None:
    changes = {"sampler.latent_image": ["refine", "LATENT"], "refine": {**REFINE, "_bypass_": True}}
    assert find_problems(changes) == ["graph has a cycle: sampler -> sampler"]  # what is passed through is its own
    broken = {**changes, "refine": {**REFINE, "_bypass_": True, "latent_image": ["latent", 0]}}
    assert check_config(broken).graph["sampler"].inputs["latent_image"] == Link("latent", 0)


# Bypass


@pytest.mark.parametrize(
    ("bypassed", "model"),
    [
        ([], "cfg_norm"),
        (["cfg_norm"], "lora"),
        (["lora"], "cfg_norm"),
        (["lora", "cfg_norm"], "unet"),
    ],
)
def test_a_bypassed_node_is_gone_and_its_own_inputs_do_not_matter(bypassed: list[str], model: str) -> None:
    changes: dict[str, Any] = {f"{name}._bypass_": True for name in bypassed}
    if "lora" in bypassed:
        changes |= {"lora.lora_name": "???", "lora.strength_model": "strong", "lora.typo": 1}
    checked = check_config(changes)
    assert list(checked.graph) == [name for name in CONFIG if name not in bypassed]
    assert checked.graph["sampler"].inputs["model"] == Link(model, 0)


@pytest.mark.parametrize(
    ("bypassed", "changes", "where", "blamed"),
    [
        (["unet"], {}, "lora", "unet"),
        (["unet", "lora"], {}, "cfg_norm", "lora"),
        (["cfg_norm"], {"cfg_norm.model": None}, "sampler", "cfg_norm"),
    ],
)
def test_where_a_bypass_leaves_a_required_input_empty_it_is_blamed(
    bypassed: list[str], changes: dict[str, Any], where: str, blamed: str
) -> None:
    assert find_problems({**changes, **{f"{name}._bypass_": True for name in bypassed}}) == [
        f"{where}.model: needs MODEL, but {blamed!r} is bypassed and has none to pass through"
    ]


def test_where_a_bypass_leaves_an_optional_input_empty_all_is_well() -> None:
    changes = {"vae": {"_node_": "Open", "_bypass_": True}, "cfg_norm.vae": ["vae", 0]}
    assert "vae" not in check_config(changes).graph["cfg_norm"].inputs


def test_what_a_bypass_passes_through_is_checked_where_it_arrives() -> None:
    changes = {
        "sampler.latent_image": ["any", 0],
        "any": {"_node_": "Any", "_bypass_": True, "any": ["unet", 0]},
        "sampler.steps": ["number", 0],
        "number": {"_node_": "Any", "_bypass_": True, "any": 0},
    }
    assert find_problems(changes) == [
        "sampler.steps: must be at least 1, got 0",
        "sampler.latent_image: needs LATENT, but [unet, MODEL] is MODEL",
    ]


# The class's own judgement


def test_a_class_judges_the_nodes_that_run_as_they_run() -> None:
    judged: list[Node] = []
    checked = check_config(
        {"other": {"_node_": "EmptyLatent", "width": 64}, "lora._bypass_": True},
        judge=lambda node, received: judged.append(node) or [],  # type: ignore[func-returns-value]
    )
    assert judged == list(checked.graph.values())
    assert type(next(node for node in judged if node.name == "sampler").inputs["cfg"]) is float


def test_what_a_class_says_is_a_problem_like_others_and_it_is_not_asked_about_a_node_with_one() -> None:
    def judge(node: Node, received_types: Any) -> list[Problem]:
        assert node.name not in ("unet", "sampler")
        return (
            [Problem("custom_validation_failed", f"{node.name}.path", "no such file")] if "path" in node.inputs else []
        )

    with pytest.raises(ConfigError) as caught:
        check_config({"unet.unet_name": "xyz", "sampler.model": ["lora", 7]}, judge=judge)
    assert [problem.where for problem in caught.value.problems] == ["unet.unet_name", "positive.path", "sampler.model"]


def test_what_is_seen_in_the_whole_graph_is_a_problem_like_others() -> None:
    seen: list[Graph] = []

    def inspect(graph: Graph) -> list[Problem]:
        seen.append(graph)
        return [Problem("input_does_not_fit", "positive.path", "does not fit")]

    with pytest.raises(ConfigError) as caught:
        check_config({"unet.unet_name": "xyz", "lora._bypass_": True}, inspect=inspect)
    assert [problem.where for problem in caught.value.problems] == ["unet.unet_name", "positive.path"]
    (graph,) = seen
    assert "lora" not in graph
    assert all(isinstance(link.output, int) for node in graph.values() for _, link in node.links)


# Any graph

KINDS = ["UNETLoader", "LoraLoaderModelOnly", "CFGNorm", "Any", "Twins", "EmptyLatent", "Nonsense"]


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    names = [f"n{index}" for index in range(draw(st.integers(1, 6)))]
    links = st.tuples(st.sampled_from([*names, "gone"]), st.sampled_from([0, 0, "MODEL", "low", 1])).map(list)
    valid = {"unet_name": "qwen.safetensors", "lora_name": LORAS[0], "strength_model": 1, "strength": 1, "width": 64}
    config: dict[str, Any] = {}
    for name in names:
        kind = draw(st.sampled_from(KINDS))
        inputs = CLASSES[kind].inputs if kind in CLASSES else {}
        given_ = {key: valid.get(key) or draw(links) for key in inputs if key not in ("vae", "pre_cfg")}
        config[name] = {"_node_": kind, "_bypass_": draw(st.sampled_from([False, False, True])), **given_}
    return config


@settings(deadline=None, max_examples=100)
@given(configs())
def test_whatever_passes_can_run(config: dict[str, Any]) -> None:
    wanted = [list(config)[-1]]
    try:
        checked = check_config({}, wanted, config)
    except ConfigError as error:
        assert error.problems
        assert len(set(error.problems)) == len(error.problems), "a problem is reported twice"
        return
    assert checked.targets == tuple(wanted)
    assert sorted(checked.order) == sorted(checked.graph)
    for index, name in enumerate(checked.order):
        node, signature = checked.graph[name], checked.signatures[name]
        assert not config[name]["_bypass_"]
        assert {key for key, spec in signature.inputs.items() if spec.required} <= set(node.inputs)
        for key, link in node.links:
            assert link.node in checked.order[:index]
            assert types_match(checked.signatures[link.node].outputs[link.output].type, signature.inputs[key].type)
    readers = {link.node for node in checked.graph.values() for _, link in node.links}
    assert set(checked.graph) == readers | set(wanted), "a node runs that nothing needs"
