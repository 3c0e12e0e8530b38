"""`python -m pipeline runs`: print the recorded runs as a table."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.commands.recorded import open_store, split_overrides
from pipeline.config.read import compose_config, read_config
from pipeline.errors import ConfigError, Problem

WIDEST = 60  # the most characters of a column
SHOWN_METRICS = re.compile(r"seconds/total|distance/.+/(max_abs|psnr)")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("runs", help="show the latest recorded runs, and what differs between them")
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many, 20 by default")
    parser.add_argument("overrides", nargs="*", help="tracking.* as for run.py")
    parser.set_defaults(run=show_runs)


def show_runs(args: argparse.Namespace) -> None:
    """Print status, name, differing settings, metrics and picture of the latest runs, the latest first."""
    if args.last < 1:
        raise ConfigError([Problem("value_smaller_than_min", "--last", f"must be at least 1, got {args.last}")])
    tracking, _ = split_overrides(args.overrides)
    experiment = tracking.experiment_name or read_config(compose_config()).tracking.experiment_name or "Default"
    runs = open_store(tracking).list_runs(experiment, args.last)
    print(format_runs(runs) if runs else f"no runs in the experiment {experiment!r} of {tracking.uri}")


def format_runs(runs: Sequence[dict[str, Any]]) -> str:
    """Return a table of runs, each with `run_id`, `name`, `status`, `params`, `metrics` and `artifact_uri`."""
    paths = find_differing([run["params"] for run in runs])
    lines = [["run", "status", "name", "settings that differ", "metrics", "picture"]]
    for run in runs:
        settings = " ".join(f"{path}={run['params'][path]}" for path in paths if path in run["params"])
        metrics = " ".join(
            f"{name}={value:.4g}"
            for name, value in sorted(run["metrics"].items(), reverse=True)
            if SHOWN_METRICS.fullmatch(name)
        )
        cells = [run["run_id"], run["status"], run["name"] or "", settings, metrics]
        lines.append([*(_cut(cell) for cell in cells), _find_picture(run["artifact_uri"])])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def find_differing(params: Sequence[dict[str, str]]) -> list[str]:
    """Return the dotted paths of the settings that are not the same in all runs that have them.

    A link is compared by the names of its node and output, as params have it. A variable stands for the inputs with the
    same values: if `seed` is returned, `sampler.seed` is not.

    Example:
        find_differing([{"seed": "1", "sampler.seed": "1"}, {"seed": "2", "sampler.seed": "2"}])  # ["seed"]
    """
    paths = dict.fromkeys(path for one in params for path in one)
    columns = {path: tuple(one.get(path) for one in params) for path in paths}
    differing = [path for path in paths if len({value for value in columns[path] if value is not None}) > 1]
    variables = {columns[path] for path in differing if "." not in path}
    return [path for path in differing if "." not in path or columns[path] not in variables]


def _find_picture(artifact_uri: str) -> str:
    """Return the path of a run's first preview, empty if the artifacts are not on this machine."""
    parts = urlsplit(artifact_uri)
    if parts.scheme not in ("", "file"):
        return ""
    return str(next(iter(sorted(Path(unquote(parts.path)).glob("*.png"))), ""))


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
