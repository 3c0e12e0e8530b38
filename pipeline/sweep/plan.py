"""The plan of a sweep: in which order its cells run, what each of them still has to run, and how long outputs are kept.

Two nodes with the same content key give the same outputs (pipeline/engine/keys.py), in whichever cell they are. So a
plan is made from keys alone, before anything runs, in time linear in the number of nodes of all cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.engine.keys import find_known
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Graph
from pipeline.graph.order import cull
from pipeline.graph.signature import Signature

LOADED_TYPES = frozenset({"MODEL", "CLIP", "VAE", "CLIP_VISION", "CONTROL_NET", "STYLE_MODEL", "UPSCALE_MODEL"})
"""What is loaded or patched, and costs most to make again."""


@dataclass(frozen=True)
class Cell:
    """A checked graph and the content key of each of its nodes."""

    checked: CheckedGraph
    keys: Mapping[str, str]


@dataclass(frozen=True)
class PlannedCell:
    """One place in the order of execution.

    index: which of the given cells it is.
    runs, reuses: its nodes, by whether they run here or have run before, in this cell or an earlier one.
    """

    index: int
    runs: tuple[str, ...]
    reuses: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The cells in the order of execution, and for each content key the last place where its outputs are read."""

    cells: tuple[PlannedCell, ...]
    last_reads: Mapping[str, int]

    def is_read_after(self, place: int, key: str) -> bool:
        """Whether a cell behind `place` reads the outputs of `key`; if not, they can be released."""
        return self.last_reads.get(key, -1) > place


def plan_cells(cells: Mapping[int, Cell]) -> Plan:
    """Order cells so that what is loaded or patched is made once and released early, and follow what each one reads.

    `cells` are given by their places in Hydra's order.
    """
    held: set[str] = set()
    planned = []
    last_reads: dict[str, int] = {}
    for place, index in enumerate(_order_cells(cells)):
        cell = cells[index]
        needed = cull(cell.checked.graph, cell.checked.targets, find_known(cell.checked, cell.keys, held))
        last_reads.update((cell.keys[name], place) for name in cell.checked.targets)
        last_reads.update((cell.keys[link.node], place) for node in needed.values() for _, link in node.links)
        runs = _find_runs(cell, needed)
        planned.append(PlannedCell(index, runs, tuple(name for name in cell.checked.order if name not in runs)))
        held.update(cell.keys[name] for name in runs)
    return Plan(tuple(planned), last_reads)


def _find_runs(cell: Cell, needed: Graph) -> tuple[str, ...]:
    """The needed nodes in order; of several with one key only the first runs."""
    first = {cell.keys[name]: name for name in reversed(cell.checked.order) if name in needed}
    return tuple(name for name in cell.checked.order if first.get(cell.keys[name]) == name)


def _order_cells(cells: Mapping[int, Cell]) -> list[int]:
    """Sort cells by the keys of their nodes, what is loaded or patched before the rest, in order of first appearance.

    Cells that share a model then follow one another, within them those that share a LoRA, and so on; cells of equal
    rank stay as they were given.
    """
    ranks: dict[str, int] = {}
    paths = {}
    for index, cell in cells.items():
        loaded = [name for name in cell.checked.order if _is_loaded(cell.checked.signatures[name])]
        rest = [name for name in cell.checked.order if name not in loaded]
        paths[index] = [ranks.setdefault(cell.keys[name], len(ranks)) for name in loaded + rest]
    return sorted(cells, key=paths.__getitem__)


def _is_loaded(signature: Signature) -> bool:
    return any(output.type in LOADED_TYPES for output in signature.outputs)
