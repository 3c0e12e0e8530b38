"""`python -m pipeline show`: show the graph that would run, as text and as pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pipeline.commands.export import check_config
from pipeline.config.read import compose_config, read_config
from pipeline.record import artifacts

PICTURE = "graph.png"


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("show", help="show the graph that would run, as text, SVG and PNG")
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs"), help="where the pictures go; by default outputs"
    )
    parser.add_argument("overrides", nargs="*", help="as for run.py, for example lora._bypass_=true")
    parser.set_defaults(run=show_graph)


def show_graph(args: argparse.Namespace) -> None:
    """Check the graph, print it, and draw it as SVG and PNG."""
    read = read_config(compose_config(args.overrides))
    checked = check_config(read)
    from pipeline.runs.console import format_graph
    from pipeline.workflow.cards import make_cards
    from pipeline.workflow.draw import measure_text, paint, write_svg
    from pipeline.workflow.picture import compose_picture

    cards = make_cards(checked)
    print(format_graph(list(cards.values()), greys=sys.stdout.isatty()))
    picture = compose_picture(cards, measure_text)
    folder = artifacts.open_folder(args.folder)
    print(artifacts.write_text(folder, artifacts.GRAPH, write_svg(picture)))
    print(artifacts.write_image(folder, PICTURE, paint(picture)))
