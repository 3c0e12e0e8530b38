"""`python -m pipeline compare A B ...`: compare the latents of runs or files with those of the first."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.recorded import open_store, show_differences, split_overrides
from pipeline.errors import ConfigError, Problem, RecordError
from pipeline.latents.distance import (
    DISTANCES,
    SUFFIXES,
    Comparison,
    Tolerance,
    compare_latents,
    find_worst,
    read_latent,
)

if TYPE_CHECKING:
    import torch

    from pipeline.record.provenance import RecordedRun

DIFFERENT = 4  # the exit status of --assert-close, the same as that of `rerun --verify`


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of `python -m pipeline`."""
    parser = commands.add_parser("compare", help="compare the latents of runs or files with those of the first")
    parser.add_argument("items", nargs="+", metavar="RUN_ID|FILE", help="at least two; tracking.* says where runs are")
    parser.add_argument("--assert-close", action="store_true", help="exit status 4 unless all are equal or close")
    parser.add_argument("--atol", type=float, default=0.0, help="close is at most atol + rtol * abs(first)")
    parser.add_argument("--rtol", type=float, default=0.0)
    parser.add_argument("--picture", type=Path, help="where the picture goes; else into outputs/comparisons/")
    parser.set_defaults(run=compare, overrides=[])


@dataclass(frozen=True)
class Compared:
    """A run or a file: its latents by node (a file has one, without a name), and the folder of their previews."""

    name: str
    latents: dict[str, torch.Tensor]
    folder: Path
    run: RecordedRun | None = None

    def find_preview(self, node: str) -> Path | None:
        """Return the picture that was drawn of the latent of a node when it was made, if there is one."""
        path = self.folder / f"{node or Path(self.name).stem}.png"
        return path if path.is_file() else None


def compare(args: argparse.Namespace) -> None:
    """Print a table of distances and the differences between the records, and draw all latents side by side."""
    tracking_overrides = [item for item in args.items if "=" in item and not Path(item).exists()]
    names = [item for item in args.items if item not in tracking_overrides]
    overrides = [*tracking_overrides, *args.overrides]
    if len(names) < 2:
        raise ConfigError([Problem("required_input_missing", "compare", "needs two runs or files at least")])
    with tempfile.TemporaryDirectory(prefix="latentgrid-") as folder:
        items = _read_items(names, overrides, Path(folder))
        tolerance = Tolerance(args.atol, args.rtol)
        first, *others = items
        rows = [(one.name, _compare(first, one, tolerance)) for one in others]
        print(_format_table(first.name, rows))
        for one in others:
            _show_records(first, one)
        target = args.picture or Path(datetime.now().strftime("outputs/comparisons/%Y-%m-%d/%H-%M-%S.png"))
        print(f"picture  {_draw(items, target)}")
    verdict = find_worst(compared.verdict for _, row in rows for compared in row)
    if args.assert_close and verdict == "different":
        sys.exit(DIFFERENT)


def _read_items(names: Sequence[str], overrides: Sequence[str], folder: Path) -> list[Compared]:
    tracking, _ = split_overrides(overrides)
    items = []
    for place, name in enumerate(names):
        path = Path(name).expanduser()
        if path.suffix.lower() in SUFFIXES:
            items.append(Compared(name, {"": read_latent(path)}, path.parent))
            continue
        from pipeline.latents.reference import read_latents

        run = open_store(tracking).read(name, folder / str(place))
        latents = read_latents(run)
        if not latents:
            raise RecordError(f"run {name}: is {run.status} and has no latent")
        items.append(Compared(f"{run.name or 'run'} ({name[:8]})", latents, run.folder, run))
    return items


def _pair_nodes(first: Compared, other: Compared) -> list[tuple[str, str, str]]:
    """Return name and both nodes of each pair of latents; the latent of a file is paired with every node of a run."""
    if "" in first.latents or "" in other.latents:
        return [(one or two or "latent", one, two) for one in first.latents for two in other.latents]
    return [(node, node, node) for node in dict.fromkeys([*first.latents, *other.latents])]


def _compare(first: Compared, other: Compared, tolerance: Tolerance) -> list[Comparison]:
    return [
        compare_latents(name, other.latents.get(two), first.latents.get(one), tolerance)
        for name, one, two in _pair_nodes(first, other)
    ]


def _format_table(first: str, rows: Sequence[tuple[str, Sequence[Comparison]]]) -> str:
    head = [f"against {first}", "node", "", *DISTANCES]
    lines = [head]
    for name, comparisons in rows:
        for one in comparisons:
            cells = [f"{getattr(one.distance, each):.6g}" for each in DISTANCES] if one.distance else [one.said]
            lines.append([name, one.name, one.verdict, *cells])
    widths = [*(max(len(line[place]) for line in lines) for place in range(3)), *(12 for _ in DISTANCES)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=False)).rstrip() for line in lines
    )


def _show_records(first: Compared, other: Compared) -> None:
    from pipeline.record.differences import find_differences, list_facts

    if first.run and other.run:
        differences = find_differences(list_facts(first.run), list_facts(other.run))
        show_differences(other.name, f"differs from {first.name}", differences, sys.stdout)


def _draw(items: Sequence[Compared], target: Path) -> Path:
    from pipeline.latents.picture import Panel, draw_comparison
    from pipeline.record.artifacts import open_folder, write_image

    first, *others = items
    rows = []
    for node, samples in first.latents.items():
        row = [Panel(first.name, samples, first.find_preview(node))]
        for other in others:
            for name, one, two in _pair_nodes(first, other):
                if one == node and two in other.latents:
                    caption = other.name if len(other.latents) == 1 else f"{name}: {other.name}"
                    row.append(Panel(caption, other.latents[two], other.find_preview(two)))
        rows.append(row)
    return write_image(open_folder(target.parent), target.name, draw_comparison(rows))
