"""A file at a moment: enough to notice that it was replaced or changed, without reading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileState:
    """Resolved path, size in bytes, times of modification and of status change in ns, and inode of a file.

    Copying tools restore the size and the modification time (`rsync -t`, `cp -p`, `touch -r`), but no program can set
    the time of the status change, so a file that was changed in place differs in that.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: str | Path) -> FileState:
        """Return the state of a file now. Raises OSError."""
        status = Path(path).stat()
        return cls(str(Path(path).resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
