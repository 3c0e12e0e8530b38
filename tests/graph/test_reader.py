"""From a config to a graph, and what can be said of it without knowing ComfyUI."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import Problem
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.reader import is_node, read_graph

UNET = {"_node_": "UNETLoader", "unet_name": "x.safetensors"}


def read(config: dict[Any, Any]) -> tuple[Graph, list[Problem]]:
    problems: list[Problem] = []
    return read_graph(config, problems), problems


def read_input(value: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Read `x: value` of a node `sampler`; gives its inputs, and code and text of each problem."""
    graph, problems = read({"unet": UNET, "lora": {"_node_": "L"}, "sampler": {"_node_": "K", "x": value}, "seed": 1})
    return dict(graph["sampler"].inputs), [(problem.code, str(problem)) for problem in problems]


def test_the_nodes_are_the_mappings_with_a_class_type_in_declared_order() -> None:
    graph, problems = read(
        {
            "sampler": {"_node_": "KSampler", "_bypass_": False, "model": ["unet", "MODEL"], "steps": 4},
            "seed": 42,
            "comfyui": {"path": None},
            "names": ["_node_"],
            "unet": {"_bypass_": True, **UNET},
        }
    )
    assert problems == []
    assert list(graph.items()) == [
        ("sampler", Node("sampler", "KSampler", {"model": Link("unet", "MODEL"), "steps": 4})),
        ("unet", Node("unet", "UNETLoader", {"unet_name": "x.safetensors"}, bypassed=True)),
    ]


@pytest.mark.parametrize(
    ("section", "answer"),
    [
        ({"_node_": "K"}, True),
        ({"_node_": None}, True),
        ({"node": "K"}, False),
        ({}, False),
        (["_node_"], False),
        ("_node_", False),
        (None, False),
    ],
)
def test_what_declares_a_node(section: Any, answer: bool) -> None:
    assert is_node(section) is answer


@pytest.mark.parametrize("config", [{}, {"seed": 1, "run": {"outputs": []}}])
def test_a_config_without_nodes_is_an_empty_graph(config: dict[str, Any]) -> None:
    assert read(config) == (Graph(), [])


def test_names_that_yaml_read_as_numbers_are_names_all_the_same() -> None:
    graph, problems = read({3: {"_node_": "K", 4: 5, "x": ["3", 0]}})
    assert (dict(graph["3"].inputs), problems) == ({"4": 5, "x": Link("3", 0)}, [])


# Inputs


def test_an_input_with_dots_in_its_name_is_a_mapping_and_a_part_named_as_the_whole_is_its_own_value() -> None:
    section = {
        "_node_": "K",
        "_id_": "12:3",
        "_ui_": {"upload": "image"},
        "images": {"image0": ["unet", 0], "image1": None},
        "format": {"format": "png", "depth": 8, "inner": {"inner": {"__value__": [1]}, "z": 2}},
    }
    graph, problems = read({"unet": UNET, "save": section})
    assert (dict(graph["save"].inputs), problems) == (
        {
            "images.image0": Link("unet", 0),
            "format": "png",
            "format.depth": 8,
            "format.inner": [1],
            "format.inner.z": 2,
        },
        [],
    )


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (4, 4),
        (0, 0),
        (0.0, 0.0),
        (False, False),
        ("", ""),
        ("a cat", "a cat"),
        (["lora", "MODEL"], Link("lora", "MODEL")),
        (["lora", 0], Link("lora", 0)),
        (["lora", -1], Link("lora", -1)),  # whether there is such an output, only ComfyUI can tell
        (["sampler", "LATENT"], Link("sampler", "LATENT")),
        ({"__value__": [0, 1]}, [0, 1]),
        ({"__value__": []}, []),
        ({"__value__": ["lora", 0]}, ["lora", 0]),
        ({"__value__": {"x": 1}}, {"x": 1}),
        ({"__value__": 3}, 3),
    ],
)
def test_an_input_is_a_constant_a_link_or_a_literal_list(value: Any, wanted: Any) -> None:
    inputs, problems = read_input(value)
    assert problems == []
    assert inputs == {"x": wanted}
    assert type(inputs["x"]) is type(wanted)


def test_an_input_that_is_null_is_not_given() -> None:
    assert read_input(None) == ({}, [])


NO_LINK = "sampler.x: a list must be a link [node, output], got "


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("???", "required_input_missing", "sampler.x: is required and not given. Give it as sampler.x=VALUE"),
        ([], "bad_linked_input", f"{NO_LINK}[]. Write a literal list as {{__value__: []}}"),
        (["lora"], "bad_linked_input", f"{NO_LINK}[lora]. Write a literal list as {{__value__: [lora]}}"),
        ([0.5, 1], "bad_linked_input", f"{NO_LINK}[0.5, 1]. Write a literal list as {{__value__: [0.5, 1]}}"),
        (
            ["lora", 0, 1],
            "bad_linked_input",
            f"{NO_LINK}[lora, 0, 1]. Write a literal list as {{__value__: [lora, 0, 1]}}",
        ),
        (
            ["lora", True],
            "bad_linked_input",
            f"{NO_LINK}[lora, True]. Write a literal list as {{__value__: [lora, True]}}",
        ),
        (
            ["lora", 0.0],
            "bad_linked_input",
            f"{NO_LINK}[lora, 0.0]. Write a literal list as {{__value__: [lora, 0.0]}}",
        ),
        (
            ["lora", None],
            "bad_linked_input",
            f"{NO_LINK}[lora, None]. Write a literal list as {{__value__: [lora, None]}}",
        ),
        (
            [["lora", 0], ["lora", 1]],
            "bad_linked_input",
            f"{NO_LINK}[['lora', 0], ['lora', 1]]. Write a literal list as {{__value__: [['lora', 0], ['lora', 1]]}}",
        ),
        (
            ["lroa", "MODEL"],
            "bad_linked_input",
            "sampler.x: [lroa, MODEL] names no node of the graph; did you mean 'lora'?",
        ),
        (
            ["xyz", 0],
            "bad_linked_input",
            "sampler.x: [xyz, 0] names no node of the graph. The nodes are unet, lora, sampler",
        ),
        (
            ["seed", 0],
            "bad_linked_input",
            "sampler.x: [seed, 0] names no node of the graph. The nodes are unet, lora, sampler",
        ),
        ({}, "invalid_input_type", "sampler.x: must be a value, a link or {__value__: [...]}, got {}"),
        (
            {"__value__": [1], "other": 2},
            "invalid_input_type",
            "sampler.x: must be a value, a link or {__value__: [...]}, got {'__value__': [1], 'other': 2}",
        ),
    ],
)
def test_a_faulty_input_is_reported_and_left_out(value: Any, code: str, message: str) -> None:
    assert read_input(value) == ({}, [(code, message)])


# Nodes


@pytest.mark.parametrize(
    ("section", "code", "message"),
    [
        ({"_node_": None}, "missing_node_type", "sampler._node_: must be a ComfyUI class_type, got None"),
        ({"_node_": ""}, "missing_node_type", "sampler._node_: must be a ComfyUI class_type, got ''"),
        ({"_node_": "???"}, "missing_node_type", "sampler._node_: must be a ComfyUI class_type, got '???'"),
        ({"_node_": 5}, "missing_node_type", "sampler._node_: must be a ComfyUI class_type, got 5"),
        ({"_node_": ["K"]}, "missing_node_type", "sampler._node_: must be a ComfyUI class_type, got ['K']"),
        (
            {"_node_": "K", "_bypass_": "yes"},
            "invalid_input_type",
            "sampler._bypass_: must be true or false, got 'yes'",
        ),
        ({"_node_": "K", "_bypass_": 1}, "invalid_input_type", "sampler._bypass_: must be true or false, got 1"),
    ],
)
def test_a_malformed_node_is_reported_and_kept(section: dict[str, Any], code: str, message: str) -> None:
    graph, problems = read({"sampler": {**section, "steps": 4}})
    assert [(problem.code, str(problem)) for problem in problems] == [(code, message)]
    assert dict(graph["sampler"].inputs) == {"steps": 4}
    assert graph["sampler"].bypassed is False


def test_every_fault_is_reported_in_the_order_of_the_config_after_what_was_known_before() -> None:
    before = Problem("unknown_section", "x", "is unknown")
    problems = [before]
    graph = read_graph(
        {
            "b": {"_node_": "", "_bypass_": 3, "u": "???", "v": ["nowhere", 0], "w": 1},
            "a": {"_node_": "K", "v": [1, 2, 3], "u": {}},
        },
        problems,
    )
    assert problems[0] is before
    assert [problem.where for problem in problems[1:]] == ["b._node_", "b._bypass_", "b.u", "b.v", "a.v", "a.u"]
    assert {name: dict(node.inputs) for name, node in graph.items()} == {"b": {"w": 1}, "a": {}}
