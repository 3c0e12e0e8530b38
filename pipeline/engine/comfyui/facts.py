"""Facts for a record: which ComfyUI runs, how it is set up, and which code its nodes and packs have."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.base.git import is_checkout, read_checkout
from pipeline.engine.comfyui.node_code import read_code, read_core
from pipeline.engine.comfyui.start import ComfyUI

SECRET = re.compile(r"key|token|secret|passw|auth|credential", re.IGNORECASE)
"""Matches names of environment variables whose values must not be recorded."""


def describe_comfyui(comfyui: ComfyUI) -> dict[str, str]:
    """Return facts on the code of ComfyUI and on what was chosen when it started, by dotted path."""
    attention = sys.modules.get("comfy.ldm.modules.attention")
    core = read_core(comfyui.installation.path)
    return {
        "comfyui.source": comfyui.installation.source,
        "comfyui.commit": describe_code(comfyui.installation.path),
        "comfyui.code": core.sha256,
        "comfyui.args": json.dumps(comfyui.settings.args, sort_keys=True, default=str),
        "comfyui.attention": getattr(getattr(attention, "optimized_attention", None), "__name__", "unknown"),
        "comfyui.vram_state": comfyui.model_management.vram_state.name,
        "device.type": comfyui.device.partition(":")[0],
        **{f"env.{name}": describe_variable(name) for name in sorted(core.variables) if name in os.environ},
    }


def describe_codes(sources: Mapping[str, Path | None], packs: Sequence[Path], root: Path) -> dict[str, str]:
    """Return facts on the code of node classes and of packs, by dotted path, and on what that code reads.

    `sources` has the file or folder of each class_type, None where it is not known; `root` is ComfyUI's folder.
    """
    named = {f"pack.{name}": path for name, path in _name_uniquely(packs)}
    codes = {f"code.{name}": read_code(path, root) for name, path in sources.items() if path}
    codes |= {f"{name}.code": read_code(path, root) for name, path in named.items()}
    facts = {name: code.sha256 for name, code in codes.items()}
    # Code that is not known cannot be compared with that of another run, so its fact is never equal.
    facts |= {f"code.{name}": f"unknown {uuid.uuid4().hex}" for name, path in sources.items() if path is None}
    facts |= {name: describe_code(path) for name, path in named.items()}
    imported = dict(package for code in codes.values() for package in code.packages.items())
    if imported:
        facts["pack.all.packages"] = ", ".join(f"{name} {version}" for name, version in sorted(imported.items()))
    variables = sorted({name for code in codes.values() for name in code.variables})
    return facts | {f"env.{name}": describe_variable(name) for name in variables if name in os.environ}


def _name_uniquely(packs: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield packs with their names, those of their folders or files; a repeated name gets a number (`pack~2`)."""
    counts = Counter[str]()
    for path in packs:
        counts[path.stem] += 1
        yield (path.stem if counts[path.stem] == 1 else f"{path.stem}~{counts[path.stem]}"), path


def describe_code(path: Path) -> str:
    """Return the git commit of a folder of code that is a checkout of its own; else `none`."""
    found = read_checkout(path) if path.is_dir() and is_checkout(path) else {}
    changed = " and changes" if found.get("clean") == "false" else ""
    return f"{found['commit']}{changed}" if found else "none"


def describe_variable(name: str) -> str:
    """Return the value of an environment variable, or the beginning of its sha256 if it may be a secret."""
    value = os.environ[name]
    return f"sha256 {hashlib.sha256(value.encode()).hexdigest()[:12]}" if SECRET.search(name) else value
