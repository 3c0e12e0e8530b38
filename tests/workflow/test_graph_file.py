"""From a prompt to a file of conf/graph/ and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import load_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workflow.making import DEFINITIONS, define

from pipeline.config.read import read_config
from pipeline.workflow.graph_file import Head, read_prompt, write_graph_file
from pipeline.workflow.names import RESERVED, name_nodes

PROMPT = {
    "3": {"class_type": "Sample", "inputs": {"model": ["12:4", 0], "seed": 7, "steps": 20, "sampler_name": "euler"}},
    "12:4": {"class_type": "Patch", "inputs": {"model": ["1", 0], "strength": 1}, "_meta": {"title": "My Patch!"}},
    "1": {"class_type": "Load", "inputs": {"name": "a"}, "_meta": {"title": "Load"}},
}


def write(prompt: Any, definitions: Any = DEFINITIONS, **more: Any) -> str:
    return write_graph_file(prompt, definitions, Head("mine", ["from a test"]), ["unet", "lora"], **more)


def read(text: str, definitions: Any = DEFINITIONS) -> dict[str, Any]:
    config = load_yaml(text)
    del config["defaults"]
    found = read_config(config)
    assert found.problems == ()
    return read_prompt(found.values, found.graph, definitions)


def strip(prompt: Any) -> Any:
    return {name: (info["class_type"], info["inputs"]) for name, info in prompt.items()}


def test_a_file_names_nodes_by_titles_and_links_by_outputs_and_ties_the_seed() -> None:
    assert (
        write(PROMPT, bypassed=["12:4"])
        == """\
# @package _global_
# python run.py graph=mine
# from a test
defaults:
- override /unet: null
- override /lora: null

seed: 7

run:
  outputs: []

sample:
  _node_: Sample
  _id_: "3"
  model: [my_patch, MODEL]
  seed: ${seed}
  steps: 20
  sampler_name: euler
  positive: null

# My Patch!
my_patch:
  _node_: Patch
  _id_: "12:4"
  _bypass_: true
  model: [load, MODEL]
  clip: null
  strength: 1

load:
  _node_: Load
  _id_: "1"
  name: a
"""
    )


def test_without_the_node_classes_links_are_by_index_and_all_else_is_the_same() -> None:
    text = write(PROMPT, {})
    assert "model: [my_patch, 0]" in text
    assert strip(read(text, {})) == strip(PROMPT)


@pytest.mark.parametrize(
    ("outputs", "wanted"), [(["A", "B"], "B"), (["A", "A"], "1"), (["A", "B "], "1"), (["A"], "1")]
)
def test_an_output_is_named_if_its_name_means_it(outputs: list[str], wanted: str) -> None:
    prompt = {"1": {"class_type": "C", "inputs": {}}, "2": {"class_type": "Show", "inputs": {"any": ["1", 1]}}}
    definitions = define("C", {}, outputs)
    text = write(prompt, definitions)
    assert f"any: [c, {wanted}]" in text
    assert strip(read(text, definitions)) == strip(prompt)


def test_only_seeds_that_are_equal_to_the_first_one_are_tied() -> None:
    nodes = {str(n): {"class_type": "Sample", "inputs": {"seed": seed}} for n, seed in enumerate([5, 6, 5])}
    text = write(nodes)
    assert (text.count("seed: ${seed}"), text.count("seed: 6"), text.count("\nseed: 5\n")) == (2, 1, 1)
    assert strip(read(text)) == strip(nodes)


def test_a_number_that_is_linked_to_a_seed_is_the_seed() -> None:
    nodes = {
        "1": {"class_type": "Number", "inputs": {"value": 5}},
        "2": {"class_type": "Sample", "inputs": {"seed": ["1", 0]}},
        "3": {"class_type": "Number", "inputs": {"value": 5}},
    }
    text = write(nodes)
    assert (text.count("value: ${seed}"), text.count("value: 5"), text.count("\nseed: 5\n")) == (1, 1, 1)
    assert strip(read(text)) == strip(nodes)


DYNAMIC = define(
    "C",
    {
        "format": ["COMFY_DYNAMICCOMBO_V3", {"options": []}],
        "group": ["COMFY_AUTOGROW_V3", {"template": {}}],
        "a b": ["INT"],
    },
)


def test_inputs_with_dots_are_mappings_so_that_the_command_line_can_name_them() -> None:
    inputs = {"format": "png", "format.depth": 8, "format.inner": "x", "format.inner.z": 1, "group.n0": 1, "a b": 2}
    text = write({"1": {"class_type": "C", "inputs": inputs}}, DYNAMIC)
    section = load_yaml(text)["c"]
    assert section["format"] == {"format": "png", "depth": 8, "inner": {"inner": "x", "z": 1}}
    assert (section["group"], section["a b"]) == ({"n0": 1}, 2)
    assert read(text, DYNAMIC)["1"]["inputs"] == inputs


@pytest.mark.parametrize("name", ["format.format", "format..x", ".x", "format.a b", "format.1"])
def test_names_that_a_mapping_cannot_hold_stay_as_they_are(name: str) -> None:
    prompt = {"1": {"class_type": "C", "inputs": {"format": "png", name: 1, "format.x": 2}}}
    assert strip(read(write(prompt, DYNAMIC), DYNAMIC)) == strip(prompt)


def test_what_no_node_reads_is_kept_apart() -> None:
    prompt = {"1": {"class_type": "Load", "inputs": {"name": "a", "upload": "image", "list": {"__value__": [1]}}}}
    text = write(prompt)
    assert load_yaml(text)["load"]["_ui_"] == {"upload": "image", "list": {"__value__": [1]}}
    assert strip(read(text)) == strip(prompt)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=6,
).filter(lambda value: not isinstance(value, list))
TRICKY = st.sampled_from(
    ["${seed}", r"\${a}", r"\\${", "???", "1e3", "0x1", "on", "null", "~", "a: b", "# x", "", " ", "\n"]
)
VALUES = (JSON | TRICKY | st.lists(JSON, max_size=3).map(lambda value: {"__value__": value})).filter(
    lambda value: not isinstance(value, dict) or "__value__" not in value or isinstance(value["__value__"], list)
)


NAMES = st.sampled_from(["x", "seed", "a.b", "a", "a.b.c", "yes"]) | st.text(min_size=1)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_value_under_any_name_comes_back(inputs: dict[str, Any]) -> None:
    inputs = {name: value for name, value in inputs.items() if name not in ("_node_", "_id_", "_ui_", "_bypass_")}
    prompt = {"1:2": {"class_type": "Unknown", "inputs": inputs}}
    back = strip(read(write(prompt, {}), {}))
    assert json.dumps(back, sort_keys=True) == json.dumps(strip(prompt), sort_keys=True)


# Names


@pytest.mark.parametrize(
    ("title", "class_type", "name"),
    [
        ("", "KSampler", "ksampler"),
        ("KSampler", "KSampler", "ksampler"),
        ("CLIP Text Encode (Positive Prompt)", "CLIPTextEncode", "clip_text_encode_positive_prompt"),
        ("", "CLIPTextEncode", "clip_text_encode"),
        ("", "EmptySD3LatentImage", "empty_sd3_latent_image"),
        ("Load LoRA", "LoraLoader", "load_lora"),
        ("采样器", "KSampler", "ksampler"),
        ("Größe", "X", "groe"),
        ("4x upscale", "X", "node_4x_upscale"),
        ("Seed", "X", "seed_2"),
        ("run", "X", "run_2"),
        ("on", "X", "on_2"),
        ("你好", "节点", "node"),
    ],
)
def test_names(title: str, class_type: str, name: str) -> None:
    assert name_nodes([(title, class_type)]) == [name]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.text(), st.text()), max_size=20))
def test_names_differ_and_can_be_written_on_the_command_line(titles: list[tuple[str, str]]) -> None:
    names = name_nodes(titles)
    assert len(set(names)) == len(titles)
    assert all(name.isidentifier() and name.isascii() and name not in RESERVED for name in names)
