"""Content keys: two nodes with the same key give the same outputs, whatever they are called.

A key is the sha256 over class_type, constants, the keys of what is linked, what the class's fingerprint says, and
the identity (path, size, mtime) of the model files that constants name.
"""

from __future__ import annotations

import hashlib
import json
import math
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
    files = {
        name: identify_file(find_file(spec.folder, value))
        for name, value in node.inputs.items()
        if (spec := signature.inputs.get(name)) and spec.folder and isinstance(value, str)
    }
    parts = [node.class_type, inputs, files, _settle(fingerprint)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def identify_file(path: str | None) -> list[Any]:
    """Path, size in bytes and mtime in ns of a file: enough to notice that it was replaced."""
    if path is None:
        return []
    state = Path(path).stat()
    return [str(Path(path).resolve()), state.st_size, state.st_mtime_ns]


def _settle(fingerprint: Any) -> str:
    """A fingerprint as text. NaN means "always changed" in ComfyUI, so it gives a text that never comes again."""
    parts = fingerprint if isinstance(fingerprint, list) else [fingerprint]
    if any(isinstance(part, float) and math.isnan(part) for part in parts):
        return uuid.uuid4().hex
    return repr(fingerprint)
