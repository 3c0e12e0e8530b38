"""`python -m pipeline comfyui`: show which ComfyUI is used."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pipeline.config.read import read_sections


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("comfyui", help="show which ComfyUI would be used, installing it if need be")
    parser.add_argument("--path", action="store_true", help="print the folder of ComfyUI and nothing else")
    parser.add_argument("overrides", nargs="*", help="as for run.py, for example comfyui.version=0.24.1")
    parser.set_defaults(run=show_comfyui)


def show_comfyui(args: argparse.Namespace) -> None:
    """Print the folder of the ComfyUI that the config finds; without `--path` also version, device and models."""
    from pipeline.engine.comfyui.locate import find_comfyui

    settings = read_sections(args.overrides, "comfyui").comfyui
    installation = find_comfyui(settings.path, settings.version)
    if args.path:
        print(installation.path)
        return
    from pipeline.engine.comfyui.start import start_comfyui

    comfyui = start_comfyui(settings)
    import torch

    print(f"path     {installation.path} ({installation.source})")
    print(f"version  {installation.version}")
    print(f"torch    {torch.__version__}")
    print(f"device   {comfyui.device}, dynamic VRAM {'on' if comfyui.dynamic_vram else 'off'}")
    for name, folders in sorted(comfyui.model_folders.items()):
        for folder in filter(os.path.isdir, folders):
            print(f"models   {name}: {folder}")
