"""One process at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def alone(lock_file: Path, doing: str) -> Iterator[None]:
    """Hold `lock_file`, waiting for whoever holds it; the system frees it when a process dies.

    `doing` is what its holder does, for those who wait (`installing ComfyUI 0.30.0`).
    """
    from filelock import FileLock, Timeout

    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is %s; waiting for it", doing)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
