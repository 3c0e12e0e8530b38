"""`python -m pipeline sample`: the sampling stage as a command; its options are the parameters of `sample_latent`."""

from __future__ import annotations

import argparse
import inspect
import json
from typing import Any

from pipeline.service.sample_latent import sample_latent

LEFT_OUT = "save_tensor"
"""The parameter without an option: a tensor cannot be printed as JSON, so it is always saved."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("sample", help="sample one latent from encodings in files; prints the result as JSON")
    for name, parameter in inspect.signature(sample_latent).parameters.items():
        if name != LEFT_OUT:
            is_required = parameter.default is inspect.Parameter.empty
            default = None if is_required else parameter.default
            parser.add_argument(f"--{name}", type=_read_type(parameter), required=is_required, default=default)
    parser.set_defaults(run=sample)


def sample(args: argparse.Namespace) -> None:
    """Sample one latent, and print what `sample_latent` returns, as JSON."""
    given = {name: value for name, value in vars(args).items() if name in inspect.signature(sample_latent).parameters}
    print(json.dumps(sample_latent(**given), indent=2))


def _read_type(parameter: inspect.Parameter) -> type:
    """Return the type of an option: int or float if the parameter is annotated so, else str."""
    kind = str(parameter.annotation).partition(" ")[0]
    return {"int": int, "float": float}.get(kind, str)
