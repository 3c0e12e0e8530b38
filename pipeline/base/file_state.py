"""The state of a file, by which a replacement or a change is noticed without reading the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileState:
    """Resolved path, size in bytes, times of modification and of status change in ns, and inode of a file.

    Copying tools can restore the size and the modification time (`rsync -t`, `cp -p`, `touch -r`). No program can set
    the time of the status change, so a file that was changed in place always differs in it.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: str | Path) -> FileState:
        """Return the present state of a file. Raises OSError."""
        return cls(str(Path(path).resolve()), *_list_numbers(Path(path).stat()))


def read_state(path: str | Path) -> tuple[int, ...]:
    """Return the numbers of a `FileState`, or an empty tuple if there is no such file. The path is not resolved."""
    try:
        return _list_numbers(os.stat(path))  # noqa: PTH116 (called a thousand times at each start)
    except OSError:
        return ()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _list_numbers(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def walk_files(folder: str | Path, skipped: frozenset[str] = frozenset(), hidden: bool = True) -> Iterator[str]:
    """Yield the paths of the files below a folder, relative to it and sorted within each folder.

    Links to folders are followed, except those that lead back to a folder above. Folders with a name in `skipped` are
    left out, and without `hidden` also folders whose names begin with a dot. A folder that cannot be listed has no
    files.
    """
    yield from _walk(os.path.realpath(folder), "", skipped, hidden, ())


def _walk(
    folder: str, prefix: str, skipped: frozenset[str], hidden: bool, ancestors: tuple[tuple[int, int], ...]
) -> Iterator[str]:
    try:
        status = Path(folder).stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    folder_id = (status.st_dev, status.st_ino)
    if folder_id in ancestors:
        return
    for entry in entries:
        if not entry.is_dir():
            if entry.is_file():
                yield prefix + entry.name
        elif entry.name not in skipped and (hidden or not entry.name.startswith(".")):
            yield from _walk(entry.path, f"{prefix}{entry.name}/", skipped, hidden, (*ancestors, folder_id))
