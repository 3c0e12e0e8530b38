"""Values changed in a workflow that was imported; `test_practice.py` does that to official ones, with subgraphs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pipeline.config.read import compose_config, read_config
from pipeline.graph.api_format import write_api_format
from pipeline.workflow.patch import patch_workflow
from pipeline.workflow.to_ui import write_ui_format

NOTE = {"id": 99, "type": "Note", "pos": [-500, 40], "size": [200, 80], "mode": 0, "widgets_values": ["mind the seed"]}


@pytest.fixture
def case(session):
    """Definitions, and a workflow with a note and a layout of its own, which gives the prompt."""
    read = read_config(compose_config([]))
    checked = session.check(read.graph, read.run.outputs, read.problems)
    definitions = session.read_definitions({node.class_type for node in checked.shown.values()})
    document = write_ui_format(checked.shown, definitions)
    for place, node in enumerate(document["nodes"]):
        node["pos"] = [1000 + place, 7]
    document["nodes"].append(NOTE)
    return definitions, document, write_api_format(checked.graph)


def change(prompt: dict[str, Any], node: str, **inputs: Any) -> dict[str, Any]:
    changed = copy.deepcopy(prompt)
    changed[node]["inputs"].update(inputs)
    return changed


def find(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(node for node in document["nodes"] if node["id"] == name)


def test_only_the_values_change(case):
    definitions, document, prompt = case
    patched = patch_workflow(document, change(prompt, "sampler", seed=7, cfg=2.5), definitions, {})
    assert find(patched, "sampler")["widgets_values"] == [7, "fixed", 8, 2.5, "euler", "simple", 1.0]
    find(document, "sampler")["widgets_values"] = find(patched, "sampler")["widgets_values"]
    assert patched == document


def test_a_bypass_is_set_and_taken_back(case):
    definitions, document, prompt = case
    bypassed = {name: info for name, info in prompt.items() if name != "lora"}
    bypassed = change(bypassed, "auraflow", model=["unet", 0])
    patched = patch_workflow(document, bypassed, definitions, {"lora": True})
    assert find(patched, "lora")["mode"] == 4
    assert patch_workflow(patched, prompt, definitions, {"lora": False}) == document


@pytest.mark.parametrize(
    ("node", "inputs"),
    [("auraflow", {"model": ["unet", 0]}), ("sampler", {"negative": ["positive", 0]}), ("sampler", {"new": 1})],
)
def test_what_values_cannot_give_is_left_to_an_automatic_layout(case, node, inputs):
    definitions, document, prompt = case
    assert patch_workflow(document, change(prompt, node, **inputs), definitions, {}) is None


def test_a_new_node_is_left_to_an_automatic_layout(case):
    definitions, document, prompt = case
    more = {**prompt, "up": {"class_type": "LatentUpscaleBy", "inputs": {"samples": ["sampler", 0]}}}
    assert patch_workflow(document, more, definitions, {}) is None
