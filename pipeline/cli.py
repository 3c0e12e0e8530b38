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
from typing import Any, NoReturn

import hydra
from dotenv import load_dotenv
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipeline.config.help import format_help
from pipeline.config.read import CONF, register_names
from pipeline.errors import ConfigError, PipelineError

COMMANDS = {
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

FULL_ERROR = "HYDRA_FULL_ERROR"

MISTAKES = (PipelineError, HydraException, OmegaConfBaseException, YAMLError)
"""The errors that are shown in plain words."""


class Terminated(KeyboardInterrupt):
    """The signal SIGTERM. Like Ctrl-C it must end the run and the sweep, so no `except Exception` may catch it."""


def run_command() -> None:
    """Run what conf/ and the overrides declare, once or as a Hydra multirun. This is `python run.py`."""
    _check_options(sys.argv[1:])
    load_dotenv(CONF.parent / ".env")
    register_names()
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
    except Exception as error:
        _exit_with_message(error, _read_overrides(), wants_traceback)


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

    problems = [] if isinstance(error, PipelineError | YAMLError) else find_override_problems(overrides)
    is_mistake = bool(problems) or isinstance(error, MISTAKES)
    if wants_traceback or not is_mistake:
        raise error
    print(ConfigError(problems) if problems else error, file=sys.stderr)
    sys.exit(1)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command of `python -m pipeline <command>`."""
    load_dotenv(CONF.parent / ".env")
    parser = argparse.ArgumentParser("python -m pipeline", description="Commands around `python run.py`.")
    commands = parser.add_subparsers(dest="command", required=True)
    arguments = sys.argv[1:] if argv is None else argv
    for name in arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS:
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
    except Exception as error:
        _exit_with_message(error, getattr(args, "overrides", ()), os.environ.get(FULL_ERROR, "0") == "1")
