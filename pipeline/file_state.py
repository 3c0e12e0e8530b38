"""A file at a moment: enough to notice that it was replaced, without reading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileState:
    """Resolved path, size in bytes and time of change in ns."""

    path: str
    size: int
    changed: int

    @classmethod
    def of(cls, path: str | Path) -> FileState:
        """The file as it is now. Raises OSError."""
        status = Path(path).stat()
        return cls(str(Path(path).resolve()), status.st_size, status.st_mtime_ns)
