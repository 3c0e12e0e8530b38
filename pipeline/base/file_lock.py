"""A lock that lets one process at a time do something."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def alone(lock_file: Path, doing: str) -> Iterator[None]:
    """Hold `lock_file`, after waiting for another process that holds it. The system frees it when a process dies.

    `doing` says what the holder does (`installing ComfyUI 0.30.0`); processes that wait log it.
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
