"""The node classes that are known to give different outputs for equal inputs, because they draw without a seed.

ComfyUI expects such a class to say so by IS_CHANGED. One that does not is found when a run is repeated and differs.
From then on its outputs equal no others: the cells of a sweep do not share them, and none is taken over from a record.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from pipeline.base.file_lock import alone
from pipeline.base.file_state import read_state
from pipeline.base.whole_file import written_whole

log = logging.getLogger(__name__)

MEMORY = "random_nodes.json"


class RandomNodes:
    """The remembered classes by the sha256 of their code, for all processes of this user."""

    def __init__(self, folder: Path):
        """`folder` contains the file with the classes; a file that cannot be read counts as empty."""
        self._path = folder / MEMORY
        self._state: tuple[int, ...] = ()
        self._known: dict[str, str] = {}

    def knows(self, class_type: str, sha256: str) -> bool:
        """Return whether a class with this code is known to draw without a seed."""
        state = read_state(self._path)
        if state != self._state:  # another process has found one
            self._state, self._known = state, {**self._known, **self._read()}
        return _make_key(class_type, sha256) in self._known

    def add(self, class_type: str, sha256: str) -> None:
        """Remember a class. If the file cannot be written, a warning is logged and only this process remembers it."""
        self._known[_make_key(class_type, sha256)] = class_type
        try:
            with (
                alone(self._path.with_name(f".{MEMORY}.lock"), "remembering a node"),
                written_whole(self._path) as path,
            ):
                path.write_text(json.dumps({**self._read(), **self._known}, indent=1), encoding="utf-8")
        except OSError as error:
            log.warning("%s cannot be written (%s), so only this process knows of %s", self._path, error, class_type)

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _make_key(class_type: str, sha256: str) -> str:
    """Return the key of a class: the sha256 alone is not enough, because all classes of a pack have the same code."""
    return f"{sha256} {class_type}"
