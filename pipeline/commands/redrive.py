"""`python -m pipeline redrive`: send dead letters of the Kafka worker again."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.config.read import read_sections


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("redrive", help="send the dead letters of the Kafka worker again, as new requests")
    parser.add_argument("--limit", type=int, help="at most so many")
    parser.add_argument("overrides", nargs="*", help="settings of the worker, for example worker.topic=requests")
    parser.set_defaults(run=run_redrive)


def run_redrive(args: argparse.Namespace) -> None:
    """Send the dead letters, and print how many were sent and how many are left."""
    from pipeline.service.redrive import redrive

    args.overrides = ["worker=kafka", *args.overrides]
    read = read_sections(args.overrides, "worker")
    sent, left = redrive(read.worker, args.limit)
    print(f"{sent} dead letters sent to {read.worker.topic}{f'; {left} without their bytes are left' if left else ''}")
