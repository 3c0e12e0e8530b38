"""The sha256 of files, computed once per file: a checkpoint can have 20 GB, and a sweep has many runs."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any

from pipeline.base.file_state import FileState, hash_file

log = logging.getLogger(__name__)

MEMORY = "file_states.sqlite"
AT_HAND = 1000
"""How many hashes an instance retains in RAM. It is limited because a service sees new files without end."""
TABLE = """CREATE TABLE IF NOT EXISTS states (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode TEXT, sha256 TEXT)"""
SETTLED_NS = 1_000_000_000
"""How old a change must be, in ns, for a hash to be stored. File systems count time in steps of up to some
milliseconds, so two changes within one step leave the same state."""
WAIT_S = 60  # for another process that writes to the database


class FileHashes:
    """Hashes files in a background thread, and stores each hash for as long as the file keeps its `FileState`.

    The hashes are stored in an SQLite database, which is a cache: if it is damaged it is removed, and if it cannot be
    used the files are hashed again.

    Example:
        hashes = FileHashes(cache_folder())
        hashes.begin(state)  # returns at once
        hashes.get(state)  # waits for the hash
    """

    def __init__(self, folder: Path):
        """Use the database in `folder`, which all processes of this user share."""
        self._database = folder / MEMORY
        self._worker = ThreadPoolExecutor(1, "latentgrid-hashes")
        self._pending: dict[FileState, Future[str | None]] = {}
        self._has_warned = False

    def begin(self, state: FileState) -> None:
        """Begin to hash a file in the background."""
        future = self._pending.get(state)
        if future is None or (future.done() and future.result() is None):  # the file may be readable again
            if len(self._pending) >= AT_HAND and next(iter(self._pending.values())).done():
                del self._pending[next(iter(self._pending))]
            self._pending[state] = self._worker.submit(self._find, state)

    def get(self, state: FileState) -> str | None:
        """Wait for the sha256 of a file and return it, or None if the file is no longer as `state` says."""
        self.begin(state)
        sha256 = self._pending[state].result()
        try:  # the file may have been replaced after it was hashed
            return sha256 if FileState.of(state.path) == state else None
        except OSError:
            return None

    def _find(self, state: FileState) -> str | None:
        return self._look_up(state) or self._hash(state)

    def _look_up(self, state: FileState) -> str | None:
        rows = self._query(
            "SELECT sha256 FROM states WHERE path = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ? AND inode = ?",
            _make_row(state),
        )
        return str(rows[0][0]) if rows else None

    def _hash(self, state: FileState) -> str | None:
        try:
            sha256 = hash_file(Path(state.path))
            if FileState.of(state.path) != state:
                return None
        except OSError:
            return None
        if _is_settled(state):
            self._query("REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?)", (*_make_row(state), sha256))
        return sha256

    def _query(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """Return the rows that a statement selects.

        Return no rows if the database cannot be used, and log a warning the first time.
        """
        try:
            self._database.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._database, timeout=WAIT_S)) as database, database:
                database.execute(TABLE)
                return database.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError, OverflowError, ValueError) as error:  # ValueError: a path that is not Unicode
            self._handle_failure(error)
            return []

    def _handle_failure(self, error: Exception) -> None:
        if not self._has_warned:
            log.warning("%s: cannot be used (%s), so files are hashed again", self._database, error)
            self._has_warned = True
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with contextlib.suppress(OSError):  # "file is not a database", "database disk image is malformed"
                self._database.unlink()


def _make_row(state: FileState) -> tuple[Any, ...]:
    path, *numbers, inode = astuple(state)
    return (path, *numbers, str(inode))  # as text: some network file systems use all 64 bits, SQLite only 63


def _is_settled(state: FileState) -> bool:
    """Return whether a change made now would give another state.

    A modification time in the future does not count as recent: somebody has set it.
    """
    now = time.time_ns()
    return now - state.ctime_ns > SETTLED_NS and not 0 <= now - state.mtime_ns <= SETTLED_NS
