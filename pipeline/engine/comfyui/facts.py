"""Which ComfyUI this is, and how it is set up, as facts of a record."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.engine.comfyui.start import ComfyUI
from pipeline.git import is_checkout, read_checkout

CORE = ("comfy", "comfy_api", "comfy_execution")
"""ComfyUI's folders of code that nodes share; the modules of nodes are told one by one."""


def describe_comfyui(comfyui: ComfyUI) -> dict[str, str]:
    """Where the code is from and what it is, and what was chosen when it started, by dotted path."""
    attention = sys.modules.get("comfy.ldm.modules.attention")
    return {
        "comfyui.source": comfyui.installation.source,
        "comfyui.commit": describe_code(comfyui.installation.path),
        "comfyui.code": _hash_core(comfyui.installation.path),
        "comfyui.args": json.dumps(comfyui.settings.args, sort_keys=True, default=str),
        "comfyui.attention": getattr(getattr(attention, "optimized_attention", None), "__name__", "unknown"),
        "comfyui.vram_state": comfyui.model_management.vram_state.name,
    }


def describe_code(path: Path) -> str:
    """The git commit of a folder of code that is a checkout of its own; else `none`."""
    found = read_checkout(path) if path.is_dir() and is_checkout(path) else {}
    changed = " and changes" if found.get("clean") == "false" else ""
    return f"{found['commit']}{changed}" if found else "none"


@functools.cache
def _hash_core(root: Path) -> str:
    digest = hashlib.sha256()
    for file in _list_core(root):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _list_core(root: Path) -> Iterator[Path]:
    yield from sorted(root.glob("*.py"))
    for folder in CORE:
        yield from sorted((root / folder).rglob("*.py"))
