"""`python -m pipeline worker`: the Kafka worker."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, compose_config, read_config
from pipeline.errors import ConfigError, Problem
from pipeline.service.sample_latent import DEFAULT, INPUTS, OVERRIDES

GROUP = "worker"


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser(GROUP, help="answer sampling requests from a Kafka topic until SIGTERM")
    parser.add_argument("overrides", nargs="*", help="as for run.py, for example worker.roots=[/data/encodings]")
    parser.set_defaults(run=run_worker)


def run_worker(args: argparse.Namespace) -> None:
    """Check the config, start ComfyUI, and answer requests until SIGTERM or Ctrl-C; with run.dry_run check only."""
    args.overrides = [f"{GROUP}=kafka", *shlex.split(os.environ.get(OVERRIDES, DEFAULT)), *args.overrides]
    read = read_worker_config(args.overrides)
    from pipeline.service.handler import RequestHandler
    from pipeline.service.health import Health
    from pipeline.service.ledger import Ledger
    from pipeline.service.logs import log_as_json
    from pipeline.service.worker import Worker

    log_as_json()
    check_models(read)
    settings, health = read.worker, Health()
    if read.run.dry_run:
        print(f"the worker can start: config, ComfyUI and models are fine (not asked: {settings.bootstrap_servers})")
        return
    # Without the worker's own settings: they say nothing of a run, and may hold a password.
    base = [one for one in args.overrides if re.match(rf"[+~]*{GROUP}\b", one) is None]
    roots = [Path(root).expanduser() for root in settings.roots]
    ledger = Ledger(Path(settings.output_root).expanduser())
    worker = Worker(settings, RequestHandler(base, roots, ledger, settings.attempts, health.set_ready), health)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    if settings.port is not None:
        logging.getLogger(__name__).info("health and metrics on port %d", health.serve(settings.port))
    worker.run()


def read_worker_config(overrides: Sequence[str]) -> RunConfig:
    """Compose and read the config of a worker. Raises ConfigError for wrong settings."""
    read = read_config(compose_config(overrides))
    problems = [problem for problem in read.problems if problem.where not in _list_inputs()]
    if not read.worker.roots:
        problems.append(Problem("required_input_missing", "worker.roots", "names no folder that inputs may lie in"))
    if problems:
        raise ConfigError(problems)
    return read


def check_models(read: RunConfig) -> None:
    """Start ComfyUI and check all of the graph that does not come with a request. Raises ConfigError, ComfyUIError."""
    from pipeline.runner import open_session

    try:
        open_session(read).check(read.graph, read.run.outputs, read.problems)
    except ConfigError as error:
        problems = [problem for problem in error.problems if problem.where not in _list_inputs()]
        if problems:
            raise ConfigError(problems) from error


def _list_inputs() -> list[str]:
    return [f"{node}.path" for node in INPUTS.values()]
