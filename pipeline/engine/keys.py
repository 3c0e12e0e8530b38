"""Content keys: two nodes with the same key give the same outputs, whatever they are called.

A key is the sha256 over class_type, constants, the keys of what is linked, what the class's fingerprint says, and
the identity (path, size, mtime) of the model files that constants name.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.graph.model import Link, Node
from pipeline.graph.signature import Signature

FindFile = Callable[[str, str], str | None]


def make_key(
    node: Node, signature: Signature, upstream: Mapping[str, str], fingerprint: Any, find_file: FindFile
) -> str:
    """Key of a node whose linked nodes have the keys `upstream`; `find_file(folder, name)` locates a model file."""
    inputs = {
        name: ["link", upstream[value.node], value.output] if isinstance(value, Link) else ["value", repr(value)]
        for name, value in sorted(node.inputs.items())
    }
    chosen = [node.inputs[name] for name, spec in signature.inputs.items() if spec.choices and name in node.inputs]
    files = [
        identify_file(path)
        for value in chosen
        for folder in signature.folders
        if isinstance(value, str) and (path := find_file(folder, value))
    ]
    name = node.name if signature.depends_on_name else ""
    parts = [node.class_type, name, inputs, files, _settle(fingerprint)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def identify_file(path: str) -> list[Any]:
    """Path, size in bytes and mtime in ns of a file: enough to notice that it was replaced."""
    state = Path(path).stat()
    return [str(Path(path).resolve()), state.st_size, state.st_mtime_ns]


def _settle(fingerprint: Any) -> str:
    """A fingerprint as text. What is not plain data, and NaN, never equals anything in ComfyUI, so neither here."""
    parts = fingerprint if isinstance(fingerprint, list) else [fingerprint]
    if all(isinstance(part, str | bytes | int | float | None) and part == part for part in parts):
        return repr(fingerprint)
    return uuid.uuid4().hex
