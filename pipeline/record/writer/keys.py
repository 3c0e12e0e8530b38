"""Turn names of inputs and nodes into keys that MLflow accepts."""

from __future__ import annotations

import hashlib
import re

KEY_LENGTH = 250  # MLflow's limit
PICTURE_LENGTH = 160  # it is part of a file name, with a time and an id


def make_key(name: str) -> str:
    """Return a name as a key that MLflow accepts for a param or metric: `name` itself if it does.

    Packs name inputs with characters that MLflow refuses. MLflow accepts letters of any alphabet. It refuses names that
    would change if they were normalised as paths, such as `/a` or `a//b`.

    Example:
        make_key("size (px)")  # size _px__85b90160
    """
    return _fit(name, r"[^\w\-. :/]", KEY_LENGTH, re.UNICODE)


def make_picture_key(name: str) -> str:
    """Return a name as a key for a picture in MLflow's comparison of runs, which accepts only ASCII letters."""
    return _fit(name, r"[^\w\-. /]", PICTURE_LENGTH, re.ASCII)


def _fit(name: str, refused: str, length: int, flags: re.RegexFlag) -> str:
    """Replace what is refused. A changed name gets a part of its hash, so that two names stay different."""
    key = re.sub(refused, "_", name, flags=flags)
    key = "/".join(part for part in key.split("/") if part not in ("", ".", ".."))
    if key == name and key and len(key) <= length:
        return name
    ending = f"_{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return key[: length - len(ending)] + ending
