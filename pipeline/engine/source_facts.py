"""What can be said of what enters a graph: the content of tensors, the dtypes of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.engine.comfyui.call import NodeOutputs
from pipeline.graph.model import Node
from pipeline.graph.signature import Signature

TENSOR_TYPES = frozenset({"CONDITIONING", "LATENT"})


def describe_sources(
    nodes: Mapping[str, Node], signatures: Mapping[str, Signature], outputs: Mapping[str, NodeOutputs]
) -> dict[str, str]:
    """Facts of those of the nodes with these `outputs` that read no other."""
    facts: dict[str, str] = {}
    for name, given in outputs.items():
        if not any(nodes[name].links):
            facts |= _describe_source(name, signatures[name], given)
    return facts


def _describe_source(name: str, signature: Signature, outputs: NodeOutputs) -> dict[str, str]:
    """Facts of a node that reads no other: `dtype.NAME` of a model, `tensor.NAME` and `shape.NAME` of a conditioning or
    latent."""
    facts = {}
    for slot, (spec, values) in enumerate(zip(signature.outputs, outputs.outputs, strict=False)):
        if spec.type in TENSOR_TYPES and (digest := outputs.digest(slot)):
            facts[f"tensor.{name}"] = digest
            facts |= {f"shape.{name}": shape for shape in _read_shape(values)}
        if spec.type == "MODEL" and values and (dtypes := _read_dtypes(values[0])):
            facts[f"dtype.{name}"] = dtypes
    return facts


def _read_shape(values: Sequence[Any]) -> list[str]:
    """`float32 [1, 16, 1, 64, 64]` of the first tensor of a conditioning or latent, as a list of one or none."""
    first: Any = values[0] if values else None
    while isinstance(first, list | tuple) and first:
        first = first[0]
    tensor: Any = first.get("samples") if isinstance(first, Mapping) else first
    return [f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")] if hasattr(tensor, "shape") else []


def _read_dtypes(patcher: Any) -> str | None:
    """`torch.float8_e4m3fn, computes in torch.bfloat16`; None for a patcher of another kind."""
    model: Any = getattr(patcher, "model", None)
    if not hasattr(model, "get_dtype"):
        return None
    stored = model.get_dtype()
    return f"{stored}, computes in {getattr(model, 'manual_cast_dtype', None) or stored}"
