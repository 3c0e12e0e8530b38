"""Runs that stand RUNNING although nothing writes their record any more: a power cut leaves such.

A run is ended only if its writer is certainly gone. Host names, process numbers and clocks coincide (two containers of
one name have both a process 7), so nothing follows from them alone. What is certain:

- In the same pid namespace of the same boot of the kernel, a process is known by its number and start.
- A writer holds a lock on a file in this user's cache folder while it lives. Where the file is and the lock is free,
  the writer is gone, if its kernel was this one or one of a machine of this name: a folder that machines share may be
  on a file system without locks between them.

Of all others, and of tags of the form of before, `host:pid:time`, nothing is known, and they are left RUNNING.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import time
import uuid
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from pipeline.base.cache_folder import cache_folder

WRITER = "writer"  # the tag that says which process writes a record
ERROR = "error"  # the tag that says why a run did not finish
FORM = "2"  # of the tag
START_TIME = 19  # place of the start in clock ticks in /proc/PID/stat after the name, by proc_pid_stat(5)


@dataclass(frozen=True)
class WriterName:
    """A process unlike any other of any time: the boot of its kernel, its namespaces of numbers and times there, its
    number and start, and the name of the file that it holds locked. What a system does not tell is empty."""

    host: str
    boot: str
    namespaces: str
    pid: str
    start: str
    lock: str

    def __str__(self) -> str:
        return ";".join((FORM, *astuple(self)))


def read_writer(text: str) -> WriterName | None:
    """Read a tag WRITER; None if it has another form."""
    form, *parts = text.split(";")
    return WriterName(*parts) if form == FORM and len(parts) == len(astuple(_describe_this())) else None


@functools.cache
def name_writer() -> str:
    """Return the name of this process for the tag WRITER, and hold its lock from now on, where there are locks."""
    with contextlib.suppress(ImportError, OSError):
        from fcntl import LOCK_EX, flock

        _locks().mkdir(parents=True, exist_ok=True)
        flock(os.open(_locks() / _describe_this().lock, os.O_RDWR | os.O_CREAT), LOCK_EX)  # until this process ends
    return str(_describe_this())


def forget_writer() -> None:
    """Remove the file of the lock: no run of this process stands RUNNING any more."""
    (_locks() / _describe_this().lock).unlink(missing_ok=True)


def end_orphans(client: Any, experiment_id: str) -> None:
    """Mark KILLED what writers that are certainly gone have left RUNNING."""
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if is_gone(run.data.tags.get(WRITER, "")):
            end_run(client, run.info.run_id, "KILLED", "the machine went down, or its record was cut off")


def end_run(client: Any, run_id: str, status: str, error: str) -> None:
    """End a run that cannot say itself how it ended."""
    client.set_tag(run_id, ERROR, error)
    client.set_terminated(run_id, status, int(time.time() * 1000))


def is_gone(text: str) -> bool:
    """Return whether the writer that a tag WRITER names is certainly gone."""
    writer, ours = read_writer(text), _describe_this()
    if writer is None:
        return False
    same_kernel = bool(ours.boot) and writer.boot == ours.boot
    if same_kernel and ours.namespaces and writer.namespaces == ours.namespaces:
        return _read_start(int(writer.pid)) not in (writer.start, None)
    return (same_kernel or writer.host == ours.host) and _is_free(writer.lock)


def _is_free(name: str) -> bool:
    """Whether a lock is here, and nobody holds it."""
    with contextlib.suppress(ImportError, OSError):
        from fcntl import LOCK_EX, LOCK_NB, flock

        with (_locks() / Path(name).name).open("r+b") as file:
            flock(file, LOCK_EX | LOCK_NB)
            return True
    return False


@functools.cache
def _describe_this() -> WriterName:
    pid = os.getpid()
    return WriterName(
        platform.node().replace(";", "_"),
        _read("/proc/sys/kernel/random/boot_id"),
        _read_namespaces(),
        str(pid),
        _read_start(pid) or "",
        f"{uuid.uuid4().hex}.lock",
    )


def _read_start(pid: int) -> str | None:
    """When a process of this pid namespace began, in clock ticks of its kernel; empty if there is none of this number,
    None if that cannot be known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass  # it is somebody else's
    stat = _read(f"/proc/{pid}/stat")  # its second field, the name in brackets, may hold anything
    return stat.rpartition(")")[2].split()[START_TIME] if stat else None


def _read_namespaces() -> str:
    try:
        return " ".join(str(Path("/proc/self/ns", kind).readlink()) for kind in ("pid", "time"))
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _locks() -> Path:
    return cache_folder() / "writers"
