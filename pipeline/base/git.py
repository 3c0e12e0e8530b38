"""Ask git about a folder: which commit is checked out there, and whether files were changed since."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path


@functools.cache
def read_checkout(folder: Path) -> dict[str, str]:
    """Return `commit` and `clean` ("true" or "false") of the checkout that contains `folder`.

    Return an empty dictionary if git knows no commit there, and leave `clean` out if git cannot tell. The first
    answer for a folder is cached for the life of the process.
    """
    commit = ask_git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    changed = ask_git(folder, "status", "--porcelain", "--untracked-files=normal")
    return {"commit": commit, **({} if changed is None else {"clean": "false" if changed else "true"})}


def is_checkout(folder: Path) -> bool:
    """Return whether `folder` is the root of a checkout, and not only a part of one that contains it."""
    return (folder / ".git").exists()


def ask_git(folder: Path, *command: str) -> str | None:
    """Run a git command in `folder` and return what it prints, or None if it fails or takes more than 10 s."""
    try:
        result = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
