"""Writing ComfyUI's API format, and reading it back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Problem
from pipeline.graph.api_format import write_api_format
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.reader import read_graph


def read_back(prompt: dict[str, Any]) -> Graph:
    """An API-format prompt is a config whose class_types are called `_node_`."""
    problems: list[Problem] = []
    graph = read_graph({name: {"_node_": one["class_type"], **one["inputs"]} for name, one in prompt.items()}, problems)
    assert problems == []
    return graph


def test_a_graph_as_comfyui_takes_it() -> None:
    graph = Graph(
        {
            "unet": Node("unet", "UNETLoader", {"unet_name": "x.safetensors", "weight_dtype": "default"}),
            "sampler": Node("sampler", "KSampler", {"model": Link("unet", 0), "steps": 4, "sigmas": [1, 0.5, 0]}),
            "empty": Node("empty", "Nothing"),
        }
    )
    assert write_api_format(graph) == {
        "unet": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": "x.safetensors", "weight_dtype": "default"},
            "_meta": {"title": "unet"},
        },
        "sampler": {
            "class_type": "KSampler",
            "inputs": {"model": ["unet", 0], "steps": 4, "sigmas": {"__value__": [1, 0.5, 0]}},
            "_meta": {"title": "sampler"},
        },
        "empty": {"class_type": "Nothing", "inputs": {}, "_meta": {"title": "empty"}},
    }
    assert list(write_api_format(graph)) == ["unet", "sampler", "empty"]


def test_an_empty_graph_is_an_empty_prompt() -> None:
    assert write_api_format(Graph()) == {}


@pytest.mark.parametrize("value", [["unet", 0], [], [[1, 2]], ["unet", "MODEL"]])
def test_a_literal_list_is_never_taken_for_a_link(value: list[Any]) -> None:
    graph = Graph({"unet": Node("unet", "K"), "a": Node("a", "K", {"x": value})})
    assert write_api_format(graph)["a"]["inputs"] == {"x": {"__value__": value}}
    assert read_back(write_api_format(graph)) == graph


SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8).filter(lambda text: text != "???"),  # OmegaConf's mark for a missing value
)
JSON = st.recursive(
    st.one_of(SCALARS, st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
NAMES = st.text("abcdefg:1_", min_size=1, max_size=6)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    links = st.builds(Link, st.sampled_from(names), st.integers(0, 3))
    inputs = st.dictionaries(NAMES, st.one_of(SCALARS, links, st.lists(JSON, max_size=3)), max_size=4)
    return Graph({name: Node(name, draw(NAMES), draw(inputs)) for name in names})


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_what_is_written_is_json_and_reads_back_as_the_same_graph(graph: Graph) -> None:
    prompt = write_api_format(graph)
    read = read_back(json.loads(json.dumps(prompt)))
    assert repr(list(read.items())) == repr(list(graph.items()))  # repr, since 1 == 1.0 == True
    assert write_api_format(read) == prompt


def test_a_constant_that_is_a_mapping_reads_back_too() -> None:
    """A bounding box, say, given as `{__value__: {x: 0, ...}}`."""
    graph = read_back({"crop": {"class_type": "K", "inputs": {"region": {"__value__": {"x": 0, "width": 512}}}}})
    assert graph["crop"].inputs == {"region": {"x": 0, "width": 512}}
    assert read_back(write_api_format(graph)) == graph


def test_writing_leaves_the_graph_alone() -> None:
    graph = Graph({"a": Node("a", "K", {"x": [1, 2]})})
    prompt = write_api_format(graph)
    prompt["a"]["inputs"]["x"] = prompt["a"]["_meta"]["title"] = prompt["a"]["inputs"]["y"] = 0
    assert graph["a"] == Node("a", "K", {"x": [1, 2]})
