"""Names of inputs and nodes as keys that MLflow takes."""

from __future__ import annotations

import hashlib
import re

KEY_LENGTH = 250  # MLflow's limit
PICTURE_LENGTH = 160  # a part of the name of a file, with a time and an id


def make_key(name: str) -> str:
    """Return a name that MLflow takes as the key of a param or metric: `name` itself if it does.

    Packs use characters in the names of inputs that it refuses. MLflow takes letters of any alphabet, and nothing that
    would be another path if it were one, such as `/a` or `a//b`.
    """
    return _fit(name, r"[^\w\-. :/]", KEY_LENGTH, re.UNICODE)


def make_picture_key(name: str) -> str:
    """Return the same for a picture of MLflow's comparison of runs, where only ASCII will do."""
    return _fit(name, r"[^\w\-. /]", PICTURE_LENGTH, re.ASCII)


def _fit(name: str, refused: str, length: int, flags: re.RegexFlag) -> str:
    """Replace what is refused. Two names that are changed stay two, by a part of their hash."""
    taken = re.sub(refused, "_", name, flags=flags)
    taken = "/".join(part for part in taken.split("/") if part not in ("", ".", ".."))
    if taken == name and taken and len(taken) <= length:
        return name
    ending = f"_{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return taken[: length - len(ending)] + ending
