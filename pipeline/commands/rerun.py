"""`python -m pipeline rerun RUN_ID`: run a recorded run again and compare the results with the recorded ones."""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.recorded import open_store, show_differences, split_overrides
from pipeline.errors import PipelineError, RecordError
from pipeline.latents.distance import Tolerance, find_worst

if TYPE_CHECKING:
    from pipeline.record.provenance import RecordedRun
    from pipeline.record.queries import RunStore
    from pipeline.runs.rerun import Rerun

STATUSES = {"equal": 0, "close": 3, "different": 4}
"""The exit status of `--verify` for each verdict. If a run fails it is 1."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("rerun", help="run a recorded run, or a whole sweep, again and compare the results")
    parser.add_argument("run_id", help="the id of a run in MLflow, or of a sweep")
    parser.add_argument("--verify", action="store_true", help="exit status 0: equal, 3: close, 4: different")
    parser.add_argument("--atol", type=float, default=0.0, help="close is at most atol + rtol * abs(recorded)")
    parser.add_argument("--rtol", type=float, default=0.0)
    parser.add_argument("overrides", nargs="*", help="tracking.* and comfyui.* of this machine, as for run.py")
    parser.set_defaults(run=run_again)


def run_again(args: argparse.Namespace) -> None:
    """Run a recorded run, or all runs of a sweep, again, and print how the results compare."""
    from pipeline.runs.rerun import rebuild_runs, rerun, rerun_sweep

    tracking, comfyui = split_overrides(args.overrides)
    folder = Path(datetime.now().strftime("outputs/reruns/%Y-%m-%d/%H-%M-%S-%f"))
    tolerance = Tolerance(args.atol, args.rtol)
    with tempfile.TemporaryDirectory(prefix="latentgrid-") as name:
        store = open_store(tracking)
        source = store.read(args.run_id, Path(name, "source"))
        is_sweep = source.record is None and bool(source.children)
        sources = _read_children(store, source, Path(name)) if is_sweep else [source]
        runs = rebuild_runs(sources, tracking, comfyui)
        for run in runs:
            show_differences(run.source.name, "differs from the record before it runs", run.differences)
        outcomes = rerun_sweep(source, runs, folder, tolerance) if is_sweep else [rerun(runs[0], folder, tolerance)]
    reruns = [one for one in outcomes if not isinstance(one, PipelineError)]
    for one in reruns:
        _show(one)
    failed = len(outcomes) - len(reruns)
    verdict = find_worst(one.verdict for one in reruns)
    summary = f"{failed} of {len(outcomes)} failed, the others are {verdict}" if failed else verdict
    print(f"{summary}   (the results are in {folder})")
    if failed:
        sys.exit(1)
    if args.verify:
        sys.exit(STATUSES[verdict])


def _read_children(store: RunStore, sweep: RecordedRun, folder: Path) -> list[RecordedRun]:
    """Return the finished runs of a sweep, and print which runs are not. Raises RecordError if there is none."""
    children = [store.read(run_id, folder / run_id) for run_id in sweep.children]
    for run in children:
        if run.record is None:
            print(f"{run.name}: is {run.status}, so there is nothing to compare with", file=sys.stderr)
    finished = [run for run in children if run.record]
    if not finished:
        raise RecordError(f"run {sweep.run_id}: no run below it has finished")
    return finished


def _show(one: Rerun) -> None:
    new_run = f", now {one.result.mlflow.run_id}" if one.result.mlflow else ""
    print(f"{one.source.name or 'run'} ({one.source.run_id}{new_run})")
    for compared in one.comparisons:
        print(f"  {compared.name}: {compared.verdict}: {compared.said}")
    if one.verdict != "equal":
        show_differences(one.source.name, "differs from the record", one.differences)
    if one.random:
        print(f"  {one.random}")
