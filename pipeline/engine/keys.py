"""Content keys: two nodes with the same key give the same outputs, whatever they are called.

A key is the sha256 over class_type, constants, the keys of what is linked, what the class's fingerprint says, and what
an `Identify` adds: in a process the states of the files that constants name.
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
"""What else tells two nodes of the same inputs apart, as plain data."""


def make_key(node: Node, signature: Signature, upstream: Mapping[str, str], fingerprint: Any, identity: Any) -> str:
    """Key of a node whose linked nodes have the keys `upstream`; `identity` is what an `Identify` says of it."""
    inputs = {
        name: ["link", upstream[value.node], value.output] if isinstance(value, Link) else ["value", settle(value)]
        for name, value in sorted(node.inputs.items())
    }
    name = node.name if signature.depends_on_name else ""
    parts = [node.class_type, name, inputs, identity, settle(fingerprint)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find_known(checked: CheckedGraph, keys: Mapping[str, str], held: Container[str]) -> set[str]:
    """The nodes that need not run, because outputs of their key are `held`.

    Output nodes always run: what they are for is to write into this run's folder.
    """
    return {name for name in checked.order if keys[name] in held and not checked.signatures[name].is_output_node}


def settle(value: Any) -> Any:
    """A constant or a fingerprint as plain data for a key.

    What is not plain data (a tensor in a node that another one expands to), and NaN, never equals anything in ComfyUI,
    so neither here.
    """
    if isinstance(value, Mapping):
        return ["mapping", sorted(([repr(key), settle(one)] for key, one in value.items()), key=lambda one: one[0])]
    if isinstance(value, list | tuple):
        return ["list", [settle(one) for one in value]]
    if isinstance(value, str | bytes | int | float | None) and value == value:
        return repr(value)
    return uuid.uuid4().hex
