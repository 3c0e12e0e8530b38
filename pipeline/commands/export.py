"""`python -m pipeline export`: write a graph in one of ComfyUI's formats, or its config."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.recorded import open_store, split_overrides
from pipeline.config.read import RunConfig, compose_config, read_config
from pipeline.errors import ConfigError
from pipeline.graph.check import CheckedGraph
from pipeline.record import artifacts

ARTIFACTS = {"api": artifacts.PROMPT, "ui": artifacts.WORKFLOW, "yaml": artifacts.CONFIG}
RUN_ID = re.compile(r"[0-9a-f]{32}")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser(
        "export", help="write a graph as ComfyUI's API format, as a workflow of its GUI, or YAML"
    )
    parser.add_argument("--format", choices=ARTIFACTS, default="ui", help="by default ui")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the file to write; by default standard output")
    parser.add_argument(
        "overrides", nargs="*", help="as for run.py; or the id of a run in MLflow, and overrides of tracking"
    )
    parser.set_defaults(run=export_graph)


def export_graph(args: argparse.Namespace) -> None:
    """Write the graph of a recorded run, or check and write the graph that the overrides declare."""
    run_id = next(iter(args.overrides), "")
    if RUN_ID.fullmatch(run_id):
        text = read_run(run_id, args.overrides[1:], ARTIFACTS[args.format])
    else:
        text = write_graph(args.overrides, args.format)
    if args.output:
        artifacts.open_folder(args.output.parent)
        artifacts.write_text(args.output.parent, args.output.name, text)
    else:
        sys.stdout.write(text)


def read_run(run_id: str, overrides: Sequence[str], name: str) -> str:
    """Return the text of an artifact of a run, finished or not. Raises ConfigError or RecordError."""
    tracking, _ = split_overrides(overrides)
    return open_store(tracking).read_artifact(run_id, name)


def write_graph(overrides: Sequence[str], form: str) -> str:
    """Return the graph that the overrides declare in a format of ARTIFACTS. Raises ConfigError with all mistakes."""
    from pipeline.runs.export import export_prompt, export_workflow, find_original
    from pipeline.runs.facts import write_yaml
    from pipeline.runs.process import open_session

    config = compose_config(overrides)
    read = read_config(config)
    checked = check_config(read)
    if form == "yaml":
        return write_yaml(config)
    if form == "api":
        return artifacts.write_json(export_prompt(checked, read.values))
    original = find_original(config.hydra)
    return artifacts.write_json(export_workflow(checked, read.values, open_session(read), original))


def check_config(read: RunConfig) -> CheckedGraph:
    """Check a config except for the files that it reads, as it may run elsewhere. Raises ConfigError."""
    from pipeline.runs.process import open_session

    if read.has_wrong_settings:
        raise ConfigError(read.problems)
    return open_session(read).check(read.graph, read.run.outputs, read.problems, needs_files=False)
