"""The command line: `python run.py [overrides]` and `python -m pipeline <command>`.

Errors are shown here and nowhere else: a user's mistake in plain words, without a traceback and with exit status 1.
`HYDRA_FULL_ERROR=1` shows the traceback. The traceback of an error that a node raised is in run.log.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import hydra
from dotenv import load_dotenv
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.base.project import IS_INSTALLED, PROJECT, ROOT
from pipeline.config.help import format_help
from pipeline.config.names import register_names
from pipeline.config.read import CONF
from pipeline.errors import ConfigError, PipelineError

COMMANDS = {
    "init": "init",
    "comfyui": "comfyui",
    "show": "show",
    "import": "import_workflow",
    "export": "export",
    "runs": "runs",
    "rerun": "rerun",
    "compare": "compare",
    "clean": "clean",
    "sync": "sync",
    "models": "models",
    "sample": "sample",
    "worker": "worker",
    "redrive": "redrive",
}
"""The commands of `python -m pipeline`, each with its module in pipeline/commands/, which is imported when needed."""

EXTRAS = {
    "torch": "comfyui",
    "confluent_kafka": "kafka",
    "prometheus_client": "kafka",
    "huggingface_hub": "models",
    "httpx2": "models",
}
"""The extra of the package that brings a module."""

FULL_ERROR = "HYDRA_FULL_ERROR"

MISTAKES = (PipelineError, HydraException, OmegaConfBaseException, YAMLError)
"""The errors that are shown in plain words."""


class Terminated(KeyboardInterrupt):
    """The signal SIGTERM. Like Ctrl-C it must end the run and the sweep, so no `except Exception` may catch it."""


def run_command() -> None:
    """Run what conf/ and the overrides declare, once or as a Hydra multirun. This is `python run.py`."""
    _check_options(sys.argv[1:])
    load_dotenv(_find_env_file())
    try:
        register_names()
    except PipelineError as error:
        sys.exit(str(error))
    wants_traceback = os.environ.get(FULL_ERROR, "0") == "1"
    os.environ[FULL_ERROR] = "1"  # Hydra then raises its errors, and they are shown below
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _run_jobs()
    except KeyboardInterrupt as error:
        status, word = (143, "terminated") if isinstance(error, Terminated) else (130, "interrupted")
        print(f"{word}; a run that had begun and not yet finished is recorded as KILLED", file=sys.stderr)
        sys.exit(status)
    except PipelineError:  # the job has logged it already
        if wants_traceback:
            raise
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 (all is shown or raised again)
        _exit_with_message(error, _read_overrides(), wants_traceback)


def _find_env_file() -> Path:
    """Return the `.env` of the project; without one that beside run.py, or in the working directory if installed."""
    return (PROJECT or (Path.cwd() if IS_INSTALLED else ROOT)) / ".env"


def _check_options(arguments: Sequence[str]) -> None:
    """Exit for options that Hydra would answer itself or with a traceback."""
    if "--version" in arguments:
        print(f"latentgrid {version('latentgrid')} (Hydra {version('hydra-core')})")
        sys.exit()
    if {"-m", "--multirun"} & {*arguments} and any(re.match("-c|--cfg", one) for one in arguments):
        print(
            "--cfg shows the config of one run, so it cannot go with -m. Leave -m out and give each setting one value; "
            "run.dry_run=true shows the plan of a sweep",
            file=sys.stderr,
        )
        sys.exit(2)


def _terminate(signum: int, frame: Any) -> NoReturn:
    raise Terminated


def _run_jobs() -> None:
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(format_help(_read_overrides()))
        return
    from pipeline.sweep.launcher import register_launcher, run_job, sweeps_recorded

    register_launcher()
    with sweeps_recorded():
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(run_job)()


def _read_overrides() -> list[str]:
    from hydra._internal.utils import get_args_parser

    return list(get_args_parser().parse_args().overrides)


def _exit_with_message(error: Exception, overrides: Sequence[str], wants_traceback: bool) -> NoReturn:
    """Show a user's mistake in plain words and exit with status 1; raise any other error.

    All wrong overrides are explained in latentgrid's words. If each is right by itself, Hydra's own message is shown.
    """
    from pipeline.config.overrides import find_override_problems

    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get(str(error.name).partition(".")[0])):
        print(f"{error.name} is not installed. Install it with: pip install 'latentgrid[{extra}]'", file=sys.stderr)
        sys.exit(1)
    problems = [] if isinstance(error, PipelineError | YAMLError) else find_override_problems(overrides)
    is_mistake = bool(problems) or isinstance(error, MISTAKES)
    if wants_traceback or not is_mistake:
        raise error
    print(ConfigError(problems) if problems else error, file=sys.stderr)
    sys.exit(1)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command of `latentgrid <command>` or `python -m pipeline <command>`."""
    words = sys.argv[1:] if argv is None else argv
    program = "latentgrid" if Path(sys.argv[0]).stem == "latentgrid" else "python -m pipeline"
    if words[:1] == ["run"]:
        sys.argv = [f"{program} run", *words[1:]]
        run_command()
        return
    if words[:1] == ["--version"]:
        _check_options(words)
    load_dotenv(_find_env_file())
    parser = argparse.ArgumentParser(program, description="Run ComfyUI graphs, and all around their records.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the graph that conf/ and the overrides declare; -m sweeps; see run --help")
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        importlib.import_module(f"pipeline.commands.{COMMANDS[name]}").add_parser(commands)
    args, rest = parser.parse_known_args(argv)
    if rest and hasattr(args, "overrides") and not any(one.startswith("-") for one in rest):
        args.overrides += rest  # argparse takes a list of positional arguments in one piece, before the options
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("pipeline").setLevel(logging.INFO)
    try:
        args.run(args)
    except Exception as error:  # noqa: BLE001 (all is shown or raised again)
        _exit_with_message(error, getattr(args, "overrides", ()), os.environ.get(FULL_ERROR, "0") == "1")
