"""What an installed ComfyUI consists of, so that a file that was changed or deleted since is noticed at the next start.

The manifest is a JSON file beside the tree: of each file the sha256, and size, times and inode as in a `FileState`.
Where these are equal, no file is read: a start looks at a thousand files in some ten milliseconds.
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
"""Folders of ComfyUI whose content is not its own."""


def list_hashes(tree: Path) -> dict[str, str]:
    """Return the sha256 of each file of a fresh tree, by its place in it."""
    return {name: _hash(tree / name) for name in _list_files(tree)}


def write_manifest(tree: Path, hashes: Mapping[str, str], manifest: Path) -> None:
    """Write the manifest of `tree`, whose files have these `hashes`; it appears whole or not at all. Raises OSError."""
    files = {name: [sha256, *read_state(tree / name)] for name, sha256 in hashes.items()}
    with written_whole(manifest) as path:
        path.write_text(json.dumps(files), encoding="utf-8")


def find_damage(tree: Path, manifest: Path) -> list[str] | None:
    """Return the files of `tree` that are not as its manifest says, by their places in it; None without a manifest."""
    try:
        files: dict[str, list[Any]] = json.loads(manifest.read_bytes())
        touched = [name for name, (_, *state) in files.items() if read_state(f"{tree}/{name}") != tuple(state)]
        damaged = [name for name in touched if _hash(tree / name) != files[name][0]]
        hashes = {name: str(sha256) for name, (sha256, *_) in files.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # none, or a damaged one
        return None
    if touched and not damaged:  # copied to another place, say
        with contextlib.suppress(OSError):
            write_manifest(tree, hashes, manifest)
    return damaged


def replace_damaged(fresh: Path, tree: Path, hashes: Mapping[str, str], kept: Path) -> list[str]:
    """Move the files of a fresh tree, which have these `hashes`, to where `tree` has others or none.

    What was there goes into the folder `kept`. Return the places of the replaced files. Raises OSError.
    """
    damaged = [name for name, sha256 in hashes.items() if _hash(tree / name) != sha256]
    for name in damaged:
        old = tree / name
        if old.exists():
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(old, kept / name)
        old.parent.mkdir(parents=True, exist_ok=True)
        for compiled in old.parent.glob(f"__pycache__/{old.stem}.*.pyc"):  # Python compares size and time only
            compiled.unlink()
        (fresh / name).replace(old)
    return damaged


def _list_files(tree: Path) -> list[str]:
    return sorted(
        name for name in walk_files(tree) if name.partition("/")[0] not in THE_USERS_OWN and not name.endswith(".pyc")
    )


def _hash(path: Path) -> str:
    """The sha256 of a file; empty if it cannot be read."""
    try:
        return hash_file(path)
    except OSError:
        return ""
