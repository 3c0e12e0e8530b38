"""Describe values in a few words, for error messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.engine.comfyui.call import NodeOutputs
from pipeline.graph.model import Link, Node


def describe_inputs(node: Node, sources: Mapping[str, NodeOutputs]) -> dict[str, str]:
    """Return a short text for each input of a node: constants as they are, tensors by shape and dtype."""
    return {
        name: describe(_follow(value, sources)) if isinstance(value, Link) else describe(value)
        for name, value in node.inputs.items()
    }


def _follow(link: Link, sources: Mapping[str, NodeOutputs]) -> Any:
    outputs = sources.get(link.node)
    if outputs is None or int(link.output) >= len(outputs.outputs):
        return None
    values = outputs.outputs[int(link.output)]
    return values[0] if len(values) == 1 else values


def describe(value: Any) -> str:
    """Return a value in a few words: `describe(torch.zeros(1, 4))` is `Tensor[1, 4] torch.float32`."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__}{list(shape)} {getattr(value, 'dtype', '')}".strip()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(describe(item) for item in value[:3]) + (", ..." if len(value) > 3 else "") + "]"
    if isinstance(value, str | int | float | bool | None):
        text = repr(value)
        return text if len(text) <= 80 else text[:77] + "..."
    return type(value).__name__
