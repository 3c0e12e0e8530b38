"""What git says of a folder: which commit its code is, and whether somebody has changed it since."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path


@functools.cache
def read_checkout(folder: Path) -> dict[str, str]:
    """`commit` and `clean` ("true" or "false") of the checkout that `folder` is in, as this process first found it.

    Empty where git knows nothing of it; without `clean` where git cannot say.
    """
    commit = ask_git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    changed = ask_git(folder, "status", "--porcelain", "--untracked-files=normal")
    return {"commit": commit, **({} if changed is None else {"clean": "false" if changed else "true"})}


def is_checkout(folder: Path) -> bool:
    """Whether `folder` is a checkout of its own, and not a part of one that lies around it."""
    return (folder / ".git").exists()


def ask_git(folder: Path, *command: str) -> str | None:
    """What git says, None if it cannot say."""
    try:
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
