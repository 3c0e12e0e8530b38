"""Content keys: two nodes with the same key give the same outputs, whatever they are called.

A key is the sha256 over class_type, constants, the keys of what is linked, what the class's fingerprint says, and what
an `Identify` adds: in a process the identity (path, size, mtime) of the model files that constants name.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Container, Mapping
from pathlib import PurePath
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
        name: ["link", upstream[value.node], value.output] if isinstance(value, Link) else ["value", settle(value)]
        for name, value in sorted(node.inputs.items())
    }
    name = node.name if signature.depends_on_name else ""
    parts = [node.class_type, name, inputs, identity, settle(fingerprint)]
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


def find_input_files(node: Node, signature: Signature, find_file: Callable[[str], str | None]) -> dict[str, str]:
    """The paths of the other files that constants of a node name, by input; `find_file` locates what a text names.

    A text without a suffix is taken for what it says: a prompt may happen to be the name of something.
    """
    return {
        name: path
        for name, value in node.inputs.items()
        if isinstance(value, str) and PurePath(value).suffix and not (signature.folders and _is_choice(signature, name))
        if (path := find_file(value))
    }


def _is_choice(signature: Signature, name: str) -> bool:
    return name in signature.inputs and signature.inputs[name].choices is not None


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
