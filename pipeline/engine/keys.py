"""Content keys: two nodes with the same key give the same outputs, whatever their names are.

A key is the sha256 over class_type, constants, the keys of the linked nodes, the class's fingerprint, and what an
`Identify` adds: within a process, the states of the files that constants name.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Container, Mapping
from typing import Any, TypeAlias

from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Link, Node
from pipeline.graph.signature import Signature

Identify: TypeAlias = Callable[[Node, Signature], Any]
"""Returns, as plain data, what else distinguishes two nodes with the same inputs."""


def make_key(node: Node, signature: Signature, upstream: Mapping[str, str], fingerprint: Any, identity: Any) -> str:
    """Return the content key of a node.

    `upstream` has the keys of the linked nodes by name, `identity` is what an `Identify` returned for the node. The
    name of the node counts only if `signature.depends_on_name` is true.
    """
    inputs = {
        name: ["link", upstream[value.node], value.output] if isinstance(value, Link) else ["value", settle(value)]
        for name, value in sorted(node.inputs.items())
    }
    name = node.name if signature.depends_on_name else ""
    parts = [node.class_type, name, inputs, identity, settle(fingerprint)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find_known(checked: CheckedGraph, keys: Mapping[str, str], held: Container[str]) -> set[str]:
    """Return the nodes that need not run, because their keys are in `held`.

    Output nodes always run, because they must write into the folder of the run.
    """
    return {name for name in checked.order if keys[name] in held and not checked.signatures[name].is_output_node}


def settle(value: Any) -> Any:
    """Return a constant or a fingerprint as plain data for a key.

    NaN, and what is not plain data (a tensor in a node of an expansion), equals nothing in ComfyUI. It becomes a unique
    text, so that it equals nothing here either.
    """
    if isinstance(value, Mapping):
        return ["mapping", sorted(([repr(key), settle(one)] for key, one in value.items()), key=lambda one: one[0])]
    if isinstance(value, list | tuple):
        return ["list", [settle(one) for one in value]]
    if isinstance(value, str | bytes | int | float | None) and value == value:
        return repr(value)
    return uuid.uuid4().hex
