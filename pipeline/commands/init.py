"""`latentgrid init`: make the folder of a project."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, Problem
from pipeline.record.artifacts import open_folder, write_text

CONFIG = """\
# What this project sets differently from latentgrid's own configuration, which `latentgrid run --help` shows.
# More choices of a group are files beside this one: conf/sampler/mine.yaml is sampler=mine.
defaults:
  - latentgrid
  - _self_
  - override hydra/job_logging: latentgrid
  - override hydra/hydra_logging: latentgrid
  - override hydra/launcher: warm

# sampler:
#   steps: 4
"""

IGNORED = "outputs/\n.env\n"


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `latentgrid`."""
    parser = commands.add_parser("init", help="make a project: a folder with a conf/ and models/ of its own")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="by default the working directory")
    parser.set_defaults(run=make_project)


def make_project(args: argparse.Namespace) -> None:
    """Write conf/config.yaml, and a .gitignore if there is none. Raises ConfigError if there is a conf/config.yaml."""
    folder = args.folder.expanduser().absolute()
    if (folder / "conf" / "config.yaml").exists():
        message = f"is there already, got {str(folder)!r}. Choose a folder without one"
        raise ConfigError([Problem("project_exists", "conf/config.yaml", message)])
    path = write_text(open_folder(folder / "conf"), "config.yaml", CONFIG)
    open_folder(folder / "models")
    if not (folder / ".gitignore").exists():
        write_text(folder, ".gitignore", IGNORED)
    print(f"{path}: what differs goes there; models go into {folder / 'models'}, laid out like ComfyUI's")
    print(f"try it: cd {args.folder} && latentgrid run sampler.steps=4")
