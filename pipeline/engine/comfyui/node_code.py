"""Which code a node runs: a hash that changes when somebody edits a node class or its pack."""

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
    path = Path(source).resolve()
    ours = [path] if path.is_relative_to(comfyui.resolve()) and "custom_nodes" not in path.parts else _list_pack(path)
    digest = hashlib.sha256()
    for file in ours:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _list_pack(module: Path) -> list[Path]:
    """The Python files of the package that a module is in; of a single file, itself."""
    folder = module.parent
    if not (folder / "__init__.py").is_file():
        return [module]
    while (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    return sorted(folder.rglob("*.py"))
