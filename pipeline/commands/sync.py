"""`python -m pipeline sync`: send the runs that were stored here while the tracking server was out of reach."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.commands.recorded import open_store, split_overrides
from pipeline.errors import RecordError
from pipeline.record.writer.store import UNSENT


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("sync", help="send the runs that were kept here while the tracking server was away")
    parser.add_argument("overrides", nargs="*", help="tracking.* as for run.py")
    parser.set_defaults(run=sync)


def sync(args: argparse.Namespace) -> None:
    """Send run by run, and print each one. A run that cannot be sent stays, and the others are still sent.

    Raises RecordError if a run cannot be sent.
    """
    tracking, _ = split_overrides(args.overrides)
    if tracking.uri == UNSENT:
        raise RecordError(f"tracking.uri: these are the runs to send, got {UNSENT!r}. Say whereto: tracking.uri=URI")
    store = open_store(tracking)
    waiting = store.list_unsent()
    failed = []
    for run in waiting:
        try:
            sent = store.send_unsent(run["run_id"])
            print(f"{run['name']}: {run['status']}, now run {sent}", flush=True)
        except RecordError as error:
            failed.append(str(error))
    print(f"sent {len(waiting) - len(failed)} of {len(waiting)} runs to {tracking.uri}")
    if failed:
        raise RecordError("\n".join([*failed, "What was not sent is still here; try again with the same command"]))
