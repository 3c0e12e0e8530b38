"""`python -m pipeline clean`: remove artifacts without a run, and runs whose artifacts are damaged."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.commands.recorded import open_store, split_overrides


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("clean", help="remove artifacts without a run and runs with damaged artifacts; asks")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("overrides", nargs="*", help="tracking.* as for run.py")
    parser.set_defaults(run=clean)


def clean(args: argparse.Namespace) -> None:
    """Print what does not belong into the store, ask whether to remove it, and do so."""
    tracking, _ = split_overrides(args.overrides)
    store = open_store(tracking)
    found = store.find_leftovers()
    for path in found["orphans"]:
        print(f"artifacts without a run  {path}")
    for run in found["broken"]:
        print(f"damaged run              {run['run_id']} {run['name']}: {run['reason']}")
    for reason in found["skipped"]:
        print(f"not looked at            {reason}")
    if not found["orphans"] and not found["broken"]:
        print("nothing to remove")
        return
    print("Folders are removed for good; runs are marked as deleted, and `mlflow runs restore` brings them back.")
    if args.yes or _agrees():
        removed = store.remove_leftovers(found["orphans"], [run["run_id"] for run in found["broken"]])
        for reason in removed["failed"]:
            print(f"not removed              {reason}")
        print(f"removed {len(removed['orphans'])} folders and {len(removed['broken'])} runs")
    else:
        print("nothing was removed")


def _agrees() -> bool:
    """Ask the user, and return whether the answer is yes. Without a terminal it is no."""
    try:
        return input("Remove all this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
