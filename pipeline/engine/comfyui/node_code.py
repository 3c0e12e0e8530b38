"""Which code a node runs: a hash that changes when somebody edits a node class or its pack, and that pack."""

from __future__ import annotations

import functools
import hashlib
import inspect
from pathlib import Path


@functools.cache
def hash_node_code(cls: type, comfyui: Path) -> str:
    """The sha256 of the Python files that make the class: its whole pack, or one module of ComfyUI's own.

    `comfyui` is ComfyUI's folder; its other modules are told by its version. What cannot be read counts as empty.
    """
    source = inspect.getsourcefile(cls)
    if source is None:
        return ""
    path, pack = Path(source).resolve(), find_pack(cls, comfyui)
    digest = hashlib.sha256()
    for file in sorted(pack.rglob("*.py")) if pack and pack.is_dir() else [path]:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@functools.cache
def find_pack(cls: type, comfyui: Path) -> Path | None:
    """The folder of the pack that a node class is in, or its single file; None for one of ComfyUI's own."""
    source = inspect.getsourcefile(cls)
    path = Path(source).resolve() if source else comfyui.resolve()
    if path.is_relative_to(comfyui.resolve()) and "custom_nodes" not in path.parts:
        return None
    folder = path.parent
    if not (folder / "__init__.py").is_file():
        return path
    while (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    return folder
