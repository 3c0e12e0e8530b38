"""`python -m pipeline worker`: the Kafka worker."""

from __future__ import annotations

import argparse
import logging
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.read import RunConfig, compose_config, read_config
from pipeline.errors import ConfigError, Problem
from pipeline.service.sample_latent import INPUTS, read_base_overrides

if TYPE_CHECKING:
    from pipeline.service.health import Health

GROUP = "worker"


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser(GROUP, help="answer sampling requests from a Kafka topic until SIGTERM")
    parser.add_argument("overrides", nargs="*", help="as for run.py, for example worker.roots=[/data/encodings]")
    parser.set_defaults(run=run_worker)


def run_worker(args: argparse.Namespace) -> None:
    """Check the config, start ComfyUI, and answer requests until SIGTERM or Ctrl-C; with run.dry_run only check."""
    args.overrides = [f"{GROUP}=kafka", *read_base_overrides(), *args.overrides]
    read = read_worker_config(args.overrides)
    from pipeline.service.handler import RequestHandler
    from pipeline.service.health import Health
    from pipeline.service.ledger import Ledger
    from pipeline.service.logs import log_as_json
    from pipeline.service.worker import Worker

    log_as_json()
    settings, health = read.worker, Health()
    port = None if settings.port is None else take_port(health, settings.port)
    check_models(read)
    if read.run.dry_run:
        print(f"the worker can start: config, ComfyUI and models are fine (not asked: {settings.bootstrap_servers})")
        return
    # The worker's own settings are left out, as they do not concern a run and may hold a password.
    base = [one for one in args.overrides if re.match(rf"[+~]*{GROUP}\b", one) is None]
    roots = [Path(root).expanduser() for root in settings.roots]
    ledger = Ledger(Path(settings.output_root).expanduser())
    worker = Worker(settings, RequestHandler(base, roots, ledger, settings.attempts, health.set_trouble), health)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    if port is not None:
        health.serve()
        logging.getLogger(__name__).info("health and metrics on port %d", port)
    worker.run()


def read_worker_config(overrides: Sequence[str]) -> RunConfig:
    """Compose and parse the config of a worker. Raises ConfigError for wrong settings."""
    from pipeline.service.settings_check import check_settings

    read = read_config(compose_config(overrides))
    problems = [problem for problem in read.problems if problem.where not in _list_inputs()]
    problems += check_settings(read.worker, read.run.outputs)
    if problems:
        raise ConfigError(problems)
    return read


def take_port(health: Health, port: int) -> int:
    """Take a port before ComfyUI starts, and return it. Raises ConfigError if it cannot be used."""
    try:
        return health.bind(port)
    except OSError as error:
        message = f"cannot be used, got {port}: {error.strerror}"
        raise ConfigError([Problem("port_not_free", f"{GROUP}.port", message)]) from error


def check_models(read: RunConfig) -> None:
    """Start ComfyUI and check the graph, except for the inputs of requests. Raises ConfigError and ComfyUIError."""
    from pipeline.runs.process import open_session

    try:
        open_session(read).check(read.graph, read.run.outputs, read.problems)
    except ConfigError as error:
        problems = [problem for problem in error.problems if problem.where not in _list_inputs()]
        if problems:
            raise ConfigError(problems) from error


def _list_inputs() -> list[str]:
    return [f"{node}.path" for node in INPUTS.values()]
