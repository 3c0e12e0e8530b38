"""Content keys: two nodes with the same key give the same outputs, whatever they are called.

A key is the sha256 over class_type, constants, the keys of what is linked, what the class's fingerprint says, and what
an `Identify` adds: in a process the identity (path, size, mtime) of the model files that constants name.
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

FindFile: TypeAlias = Callable[[str, str], str | None]
"""`find_file(folder, name)` locates a model file."""

Identify: TypeAlias = Callable[[Node, Signature], Any]
"""What else tells two nodes of the same inputs apart, as plain data."""


def make_key(node: Node, signature: Signature, upstream: Mapping[str, str], fingerprint: Any, identity: Any) -> str:
    """Key of a node whose linked nodes have the keys `upstream`; `identity` is what an `Identify` says of it."""
    inputs = {
        name: ["link", upstream[value.node], value.output] if isinstance(value, Link) else ["value", repr(value)]
        for name, value in sorted(node.inputs.items())
    }
    name = node.name if signature.depends_on_name else ""
    parts = [node.class_type, name, inputs, identity, _settle(fingerprint)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find_model_files(node: Node, signature: Signature, find_file: FindFile) -> dict[str, str]:
    """The paths of the model files that constants of a node name, by input."""
    return {
        name: path
        for name, spec in signature.inputs.items()
        if spec.choices and isinstance(node.inputs.get(name), str)
        for folder in signature.folders
        if (path := find_file(folder, node.inputs[name]))
    }


def find_known(checked: CheckedGraph, keys: Mapping[str, str], held: Container[str]) -> set[str]:
    """The nodes that need not run, because outputs of their key are `held`.

    Output nodes always run: what they are for is to write into this run's folder.
    """
    return {name for name in checked.order if keys[name] in held and not checked.signatures[name].is_output_node}


def _settle(fingerprint: Any) -> str:
    """A fingerprint as text. What is not plain data, and NaN, never equals anything in ComfyUI, so neither here."""
    parts = fingerprint if isinstance(fingerprint, list) else [fingerprint]
    if all(isinstance(part, str | bytes | int | float | None) and part == part for part in parts):
        return repr(fingerprint)
    return uuid.uuid4().hex
