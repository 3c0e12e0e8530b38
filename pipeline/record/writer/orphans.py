"""Runs that stand RUNNING although nothing writes their record any more: a power cut leaves such."""

from __future__ import annotations

import functools
import os
import platform
import time
from typing import Any

WRITER = "writer"  # the tag that says which process writes a record


@functools.cache
def name_writer() -> str:
    """This process, unlike any other of any time: host, number, and when it began."""
    import psutil

    return f"{platform.node()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def end_orphans(client: Any, experiment_id: str) -> None:
    """Mark KILLED what writers of this host that are gone have left RUNNING."""
    host = platform.node()
    running = client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
    for run in running:
        writer = run.data.tags.get(WRITER, "")
        if writer.startswith(f"{host}:") and not _is_alive(writer):
            end_run(client, run.info.run_id, "KILLED", "the machine went down, or its record was cut off")


def end_run(client: Any, run_id: str, status: str, error: str) -> None:
    """End a run that cannot say itself how it ended."""
    client.set_tag(run_id, "error", error)
    client.set_terminated(run_id, status, int(time.time() * 1000))


def _is_alive(writer: str) -> bool:
    import psutil

    _, number, began = writer.rsplit(":", 2)
    try:
        return f"{psutil.Process(int(number)).create_time():.2f}" == began
    except psutil.Error:
        return False
