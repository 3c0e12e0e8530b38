"""Facts on what enters a graph: the content of tensors, the dtypes of models, LoRAs that do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.engine.comfyui.call import NodeOutputs
from pipeline.engine.comfyui.seed_batch import SeedBatch
from pipeline.graph.model import Node
from pipeline.graph.signature import Signature

MOST = 10_000  # content keys whose facts are remembered
TENSOR_TYPES = frozenset({"CONDITIONING", "LATENT"})


class SourceFacts:
    """Facts on the sources of graphs, which are the nodes that read no other, and on other nodes, by content key.

    They outlive the outputs, so that they are known of a run that read no source because of cache hits.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, str]] = {}
        self._noted: dict[str, dict[str, str]] = {}
        self._batches: dict[str, SeedBatch] = {}

    def see(
        self,
        nodes: Mapping[str, Node],
        signatures: Mapping[str, Signature],
        outputs: Mapping[str, NodeOutputs],
        keys: Mapping[str, str],
    ) -> None:
        """Describe the sources among the nodes with these `outputs`, unless that was done before."""
        for name, node_outputs in outputs.items():
            if not any(nodes[name].links) and keys[name] not in self._seen:
                self._seen[keys[name]] = _describe_source(signatures[name], node_outputs)
        _forget_first(self._seen)

    def note(self, key: str, kind: str, text: str) -> None:
        """Store a fact on a node that need not be a source; with an empty `text`, that there is none of this `kind`."""
        self._noted[key] = {**self._noted.get(key, {}), kind: text}
        _forget_first(self._noted)

    def note_batch(self, key: str, batch: SeedBatch | None) -> None:
        """Store the batch that a KSampler was called for, under the keys of its seeds; None if it was called alone."""
        self._batches.pop(key, None)
        if batch:
            self._batches |= dict.fromkeys(batch.seeds, batch)
            _forget_first(self._batches)

    def find_batch(self, key: str) -> SeedBatch | None:
        """Return the batch that `note_batch` stored for `key`, or None."""
        return self._batches.get(key)

    def list_facts(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Return the facts on the nodes with these `keys`, by `KIND.NAME`.

        They are `dtype.NAME` of a model, `tensor.NAME` (content) and `shape.NAME` of a conditioning or latent, and what
        `note` has stored.
        """
        seen = ((name, {**self._seen.get(key, {}), **self._noted.get(key, {})}) for name, key in keys.items())
        return {f"{kind}.{name}": text for name, facts in seen for kind, text in facts.items() if text}


def _forget_first(facts: dict[str, Any]) -> None:
    while len(facts) > MOST:
        del facts[next(iter(facts))]


def _describe_source(signature: Signature, outputs: NodeOutputs) -> dict[str, str]:
    """Return `dtype` of a model, `tensor` and `shape` of a conditioning or latent."""
    facts = {}
    for slot, (spec, values) in enumerate(zip(signature.outputs, outputs.outputs, strict=False)):
        if spec.type in TENSOR_TYPES and (digest := outputs.digest(slot)):
            facts["tensor"] = digest
            if shape := _read_shape(values):
                facts["shape"] = shape
        if spec.type == "MODEL" and values and (dtypes := _read_dtypes(values[0])):
            facts["dtype"] = dtypes
    return facts


def _read_shape(values: Sequence[Any]) -> str | None:
    """Return `float32 [1, 16, 1, 64, 64]` for the first tensor of a conditioning or latent, None without one."""
    first: Any = values[0] if values else None
    while isinstance(first, list | tuple) and first:
        first = first[0]
    tensor: Any = first.get("samples") if isinstance(first, Mapping) else first
    return f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.") if hasattr(tensor, "shape") else None


def _read_dtypes(patcher: Any) -> str | None:
    """Return `torch.float8_e4m3fn, computes in torch.bfloat16` for a model; None for a patcher of another kind."""
    model: Any = getattr(patcher, "model", None)
    if not hasattr(model, "get_dtype"):
        return None
    stored = model.get_dtype()
    return f"{stored}, computes in {getattr(model, 'manual_cast_dtype', None) or stored}"
