"""Small workflows in the GUI's format, and the node classes that they use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.workflow.definitions import NodeDefinition
from pipeline.workflow.to_api import WorkflowExport

SEED = {"default": 0, "min": 0, "max": 2**64 - 1}

INFOS: dict[str, dict[str, Any]] = {
    "Load": {"input": {"required": {"name": [["a", "b"]]}}, "output": ["MODEL", "CLIP"]},
    "Patch": {
        "input": {"required": {"model": ["MODEL"], "clip": ["CLIP"], "strength": ["FLOAT", {"default": 1.0}]}},
        "output": ["MODEL", "CLIP"],
    },
    "Encode": {
        "input": {"required": {"text": ["STRING", {"dynamicPrompts": True}], "clip": ["CLIP"]}},
        "output": ["CONDITIONING"],
    },
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", SEED],
                "steps": ["INT", {"default": 20}],
                "sampler_name": [["euler", "heun"]],
            },
            "optional": {"positive": ["CONDITIONING"]},
        },
        "output": ["LATENT"],
    },
    "Number": {"input": {"required": {"value": ["INT", {"default": 7}]}}, "output": ["INT"]},
    "Show": {"input": {"required": {"any": ["*"]}}, "output": [], "output_node": True},
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}},
        "output": [],
        "output_node": True,
    },
}

DEFINITIONS = {name: NodeDefinition.read(name, info) for name, info in INFOS.items()}


def define(class_type: str, inputs: dict[str, Any], outputs: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """Definitions in which `class_type` has these inputs, a name starting with `?` being optional."""
    parts: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
    for name, declaration in inputs.items():
        parts["optional" if name.startswith("?") else "required"][name.lstrip("?")] = declaration
    info = {"input": parts, "output": list(outputs), **more}
    return {**DEFINITIONS, class_type: NodeDefinition.read(class_type, info)}


def make_node(
    node_id: int | str,
    kind: str,
    values: Any = None,
    inputs: dict[str, int | None] | None = None,
    widgets: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """A node of a file; `inputs` gives the link of each saved input, `widgets` which of them belong to a widget."""
    slots = [
        {"name": name, "type": "*", "link": link, **({"widget": {"name": name}} if name in widgets else {})}
        for name, link in (inputs or {}).items()
    ]
    saved = {"id": node_id, "type": kind, "mode": 0, "inputs": slots, **more}
    return saved if values is None else {**saved, "widgets_values": values}


def make_workflow(nodes: list[dict[str, Any]], links: Sequence[Sequence[Any]] = (), **more: Any) -> dict[str, Any]:
    """A workflow of version 0.4; links are [id, origin, slot, target, slot, type]."""
    return {"version": 0.4, "nodes": nodes, "links": list(map(list, links)), **more}


def make_subgraph(
    name: str,
    nodes: list[dict[str, Any]],
    links: Sequence[Sequence[Any]],
    inputs: Sequence[tuple[str, str]] = (),
    outputs: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The definition of a subgraph; -10 is the origin of its inputs and -20 the target of its outputs."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    entries = [dict(zip(keys, link, strict=True)) for link in links]

    def bound(boundaries: Sequence[tuple[str, str]], end: str, slot: str, number: int) -> list[dict[str, Any]]:
        return [
            {"name": one, "type": kind, "linkIds": [e["id"] for e in entries if e[end] == number and e[slot] == place]}
            for place, (one, kind) in enumerate(boundaries)
        ]

    return {
        "id": name,
        "name": name,
        "nodes": nodes,
        "links": entries,
        "inputs": bound(inputs, "origin_id", "origin_slot", -10),
        "outputs": bound(outputs, "target_id", "target_slot", -20),
    }


def export(workflow: dict[str, Any], definitions: dict[str, NodeDefinition] | None = None, **more: Any) -> Any:
    """The inputs of each node of the prompt."""
    prompt = WorkflowExport(workflow, definitions or DEFINITIONS, **more).make_prompt()
    return {name: info["inputs"] for name, info in prompt.items()}
