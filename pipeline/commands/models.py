"""`python -m pipeline models fetch NAME`: fetch the files of a model set from a hub into the models folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pipeline.base.project import IS_INSTALLED
from pipeline.config.read import read_sections
from pipeline.errors import ConfigError, Problem
from pipeline.models.sets import MODEL_FOLDERS, MODELS


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("models", help="fetch the models of an experiment")
    actions = parser.add_subparsers(dest="action", required=True)
    fetch = actions.add_parser("fetch", help="fetch what is missing of a model set, and check what is there")
    fetch.add_argument("name", help="a file of models/, for example qwen_image_edit_2509")
    fetch.add_argument("overrides", nargs="*", help="as for run.py: comfyui.models=[FOLDER] says where to")
    fetch.set_defaults(run=fetch_models)


def fetch_models(args: argparse.Namespace) -> None:
    """Fetch into the first folder of comfyui.models, or else the project's own, and print the paths of the files."""
    from huggingface_hub.utils.logging import disable_propagation

    from pipeline.models.fetch import fetch_model_set

    disable_propagation()  # it has a handler of its own, and would log everything twice
    settings = read_sections(args.overrides, "comfyui").comfyui
    folders = [*(Path(folder).expanduser().absolute() for folder in settings.models), *MODEL_FOLDERS]
    if IS_INSTALLED and folders[0] == MODELS:
        message = "must say where to fetch to. Give comfyui.models=[FOLDER], or make a project: latentgrid init"
        raise ConfigError([Problem("no_project", "comfyui.models", message)])
    try:
        places = fetch_model_set(args.name, folders)
    except KeyboardInterrupt:
        print("interrupted; what has arrived is kept: run again to go on from there", file=sys.stderr)
        sys.exit(130)
    print(*places, sep="\n")
