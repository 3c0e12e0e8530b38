"""What can be said of what enters a graph: the content of tensors, the dtypes of models."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Facts of a node that reads no other: `tensor.NAME` of a conditioning or latent, `dtype.NAME` of a model."""
    facts = {}
    for slot, (spec, values) in enumerate(zip(signature.outputs, outputs.outputs, strict=False)):
        if spec.type in TENSOR_TYPES and (digest := outputs.digest(slot)):
            facts[f"tensor.{name}"] = digest
        if spec.type == "MODEL" and values and (dtypes := _read_dtypes(values[0])):
            facts[f"dtype.{name}"] = dtypes
    return facts


def _read_dtypes(patcher: Any) -> str | None:
    """`torch.float8_e4m3fn, computes in torch.bfloat16`; None for a patcher of another kind."""
    model: Any = getattr(patcher, "model", None)
    if not hasattr(model, "get_dtype"):
        return None
    stored = model.get_dtype()
    return f"{stored}, computes in {getattr(model, 'manual_cast_dtype', None) or stored}"
