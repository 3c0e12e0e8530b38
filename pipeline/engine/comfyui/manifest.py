"""The manifest of an installed ComfyUI, by which a changed or deleted file is noticed at the next start.

It is a JSON file beside the tree that has, for each file, the sha256 and the size, times and inode of a `FileState`. A
file is read only if these differ, so that a start checks a thousand files in some ten milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.base.file_state import hash_file, read_state, walk_files
from pipeline.base.whole_file import written_whole

THE_USERS_OWN = frozenset(("models", "input", "output", "temp", "user"))
"""Folders in ComfyUI's tree whose files belong to the user."""


def list_hashes(tree: Path) -> dict[str, str]:
    """Return the sha256 of each file of a fresh tree, by its path within the tree."""
    return {name: _hash(tree / name) for name in _list_files(tree)}


def write_manifest(tree: Path, hashes: Mapping[str, str], manifest: Path) -> None:
    """Write the manifest of `tree`, whose files have these `hashes`. It appears whole or not at all. Raises OSError."""
    files = {name: [sha256, *read_state(tree / name)] for name, sha256 in hashes.items()}
    with written_whole(manifest) as path:
        path.write_text(json.dumps(files), encoding="utf-8")


def find_damage(tree: Path, manifest: Path) -> list[str] | None:
    """Return the files of `tree` that differ from its manifest, by their paths within it; None without a manifest.

    If files have other times or inodes but their old content, the manifest is written anew.
    """
    try:
        files: dict[str, list[Any]] = json.loads(manifest.read_bytes())
        touched = [name for name, (_, *state) in files.items() if read_state(f"{tree}/{name}") != tuple(state)]
        damaged = [name for name in touched if _hash(tree / name) != files[name][0]]
        hashes = {name: str(sha256) for name, (sha256, *_) in files.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # no manifest, or a damaged one
        return None
    if touched and not damaged:  # the tree was copied, for example
        with contextlib.suppress(OSError):
            write_manifest(tree, hashes, manifest)
    return damaged


def replace_damaged(fresh: Path, tree: Path, hashes: Mapping[str, str], kept: Path) -> list[str]:
    """Move the files of the tree `fresh`, which have these `hashes`, to where `tree` has other files or none.

    The old files are moved into the folder `kept`. Return the paths of the replaced files within the tree. Raises
    OSError.
    """
    damaged = [name for name, sha256 in hashes.items() if _hash(tree / name) != sha256]
    for name in damaged:
        old = tree / name
        if old.exists():
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(old, kept / name)
        old.parent.mkdir(parents=True, exist_ok=True)
        for compiled in old.parent.glob(f"__pycache__/{old.stem}.*.pyc"):  # Python checks them by size and time only
            compiled.unlink()
        (fresh / name).replace(old)
    return damaged


def _list_files(tree: Path) -> list[str]:
    return sorted(
        name for name in walk_files(tree) if name.partition("/")[0] not in THE_USERS_OWN and not name.endswith(".pyc")
    )


def _hash(path: Path) -> str:
    """Return the sha256 of a file; empty if it cannot be read."""
    try:
        return hash_file(path)
    except OSError:
        return ""
