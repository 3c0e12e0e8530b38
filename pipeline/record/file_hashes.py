"""The sha256 of model files, each computed once: a checkpoint has 20 GB, and a sweep many runs."""

from __future__ import annotations

import hashlib
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from pipeline.file_state import FileState

MEMORY = "file_hashes.sqlite"
AT_HAND = 1000
"""Files whose hashes need not be looked up: a service sees new ones without end."""
TABLE = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, sha256 TEXT)"


class FileHashes:
    """Hashes files in the background, and remembers what it found for as long as a file keeps its size and time."""

    def __init__(self, folder: Path):
        """What is found is kept in `folder`, for all processes of this user."""
        folder.mkdir(parents=True, exist_ok=True)
        self._memory = folder / MEMORY
        self._worker = ThreadPoolExecutor(1, "latentgrid-hashes")
        self._pending: dict[FileState, Future[str | None]] = {}

    def begin(self, state: FileState) -> None:
        """Begin to hash a file."""
        if state not in self._pending:
            if len(self._pending) >= AT_HAND and next(iter(self._pending.values())).done():
                del self._pending[next(iter(self._pending))]
            self._pending[state] = self._worker.submit(self._find, state)

    def get(self, state: FileState) -> str | None:
        """Wait for the hash of a file; None if the file is no longer as `state` says."""
        self.begin(state)
        return self._pending[state].result()

    def _find(self, state: FileState) -> str | None:
        return self._recall(state) or self._hash(state)

    def _recall(self, state: FileState) -> str | None:
        with closing(self._open()) as memory:
            row = memory.execute(
                "SELECT sha256 FROM files WHERE path = ? AND size = ? AND changed = ?",
                (state.path, state.size, state.changed),
            ).fetchone()
        return str(row[0]) if row else None

    def _hash(self, state: FileState) -> str | None:
        try:
            with Path(state.path).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if FileState.of(state.path) != state:
                return None
        except OSError:
            return None
        with closing(self._open()) as memory, memory:
            memory.execute("REPLACE INTO files VALUES (?, ?, ?, ?)", (state.path, state.size, state.changed, found))
        return found

    def _open(self) -> sqlite3.Connection:
        memory = sqlite3.connect(self._memory, timeout=60)
        memory.execute(TABLE)
        return memory


def hash_file(path: Path) -> str:
    """The sha256 of a file, now and not remembered."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
