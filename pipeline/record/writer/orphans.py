"""End runs that are RUNNING although nothing writes their record any more, for example after a power cut.

A run is ended only if its writer is certainly gone. Host names, process ids and clocks can coincide (two containers of
the same name may both have a process 7), so nothing follows from them alone. Two things are certain:

- In the same pid namespace of the same boot of the kernel, a process is identified by its id and its start.
- A writer holds a lock on a file in this user's cache folder while it lives. If the file exists and the lock is free,
  the writer is gone. This counts only for a writer on this kernel or on a machine of this name, because a folder that
  machines share may be on a file system without locks between them.

Nothing is known about all other writers and those with a tag of the older form `host:pid:time`; their runs stay
RUNNING.
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
FORM = "2"  # the version of the form of the tag WRITER
START_TIME = 19  # index of the start, in clock ticks, after the name in /proc/PID/stat; see proc_pid_stat(5)


@dataclass(frozen=True)
class WriterName:
    """What identifies a writer process among all processes of all times.

    It has the boot of its kernel, its pid and time namespaces, its process id and start, and the name of the file that
    it holds locked. What a system does not provide is empty.
    """

    host: str
    boot: str
    namespaces: str
    pid: str
    start: str
    lock: str

    def __str__(self) -> str:
        return ";".join((FORM, *astuple(self)))


def read_writer(text: str) -> WriterName | None:
    """Parse a tag WRITER; return None if it has another form."""
    form, *parts = text.split(";")
    return WriterName(*parts) if form == FORM and len(parts) == len(astuple(_describe_this())) else None


@functools.cache
def name_writer() -> str:
    """Return the tag WRITER of this process, and hold its lock from now on if the system has such locks."""
    with contextlib.suppress(ImportError, OSError):
        from fcntl import LOCK_EX, flock

        _locks().mkdir(parents=True, exist_ok=True)
        flock(os.open(_locks() / _describe_this().lock, os.O_RDWR | os.O_CREAT), LOCK_EX)  # until this process ends
    return str(_describe_this())


def forget_writer() -> None:
    """Remove the lock file, because no run of this process is RUNNING any more."""
    (_locks() / _describe_this().lock).unlink(missing_ok=True)


def end_orphans(client: Any, experiment_id: str) -> None:
    """Mark KILLED the runs that are RUNNING although their writer is certainly gone."""
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if is_gone(run.data.tags.get(WRITER, "")):
            end_run(client, run.info.run_id, "KILLED", "the machine went down, or its record was cut off")


def end_run(client: Any, run_id: str, status: str, error: str) -> None:
    """End a run that cannot do so itself, with a tag that says why it did not finish."""
    client.set_tag(run_id, ERROR, error)
    client.set_terminated(run_id, status, int(time.time() * 1000))


def is_gone(text: str) -> bool:
    """Return whether the writer that a tag WRITER names is certainly gone."""
    writer, this = read_writer(text), _describe_this()
    if writer is None:
        return False
    same_kernel = bool(this.boot) and writer.boot == this.boot
    if same_kernel and this.namespaces and writer.namespaces == this.namespaces:
        return _read_start(int(writer.pid)) not in (writer.start, None)
    return (same_kernel or writer.host == this.host) and _is_free(writer.lock)


def _is_free(name: str) -> bool:
    """Return whether the lock file exists on this machine and nobody holds its lock."""
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
    """Return when a process of this pid namespace began, in clock ticks of its kernel.

    Return an empty text if there is no such process, and None if that cannot be found out.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass  # the process exists but belongs to another user
    stat = _read(f"/proc/{pid}/stat")  # the second field, the name in brackets, may contain any character
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
