"""The plan of a sweep: in which order its cells run, what each of them still has to run, and how long outputs are kept.

Two nodes with the same content key give the same outputs (pipeline/engine/keys.py), in whichever cell they are. So a
plan is made from keys alone, before anything runs, in time linear in the number of nodes of all cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.engine.comfyui.seed_batch import SeedBatch
from pipeline.engine.keys import find_known
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Graph
from pipeline.graph.order import cull
from pipeline.graph.signature import Signature
from pipeline.sweep.batches import BatchedSampler, plan_batches

LOADED_TYPES = frozenset({"MODEL", "CLIP", "VAE", "CLIP_VISION", "CONTROL_NET", "STYLE_MODEL", "UPSCALE_MODEL"})
"""What is loaded or patched, and costs most to make again."""


@dataclass(frozen=True)
class Cell:
    """A checked graph, the content key of each of its nodes, and the KSampler that may run for other cells too."""

    checked: CheckedGraph
    keys: Mapping[str, str]
    batched: BatchedSampler | None = None


@dataclass(frozen=True)
class PlannedCell:
    """One place in the order of execution.

    index: which of the given cells it is.
    runs, reuses: its nodes, by whether they run here or have run before, in this cell or an earlier one.
    batch: the seeds that are sampled with its own, in this cell or an earlier one; None: it is sampled alone.
    """

    index: int
    runs: tuple[str, ...]
    reuses: tuple[str, ...]
    batch: SeedBatch | None = None


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
    order = _order_cells(cells)
    batches = plan_batches({index: (cells[index].keys, cells[index].batched) for index in order})
    for place, index in enumerate(order):
        cell, batch = cells[index], batches.get(index)
        needed = cull(cell.checked.graph, cell.checked.targets, find_known(cell.checked, cell.keys, held))
        last_reads.update((cell.keys[name], place) for name in cell.checked.targets)
        last_reads.update((cell.keys[link.node], place) for node in needed.values() for _, link in node.links)
        runs = _find_runs(cell, needed)
        reuses = tuple(name for name in cell.checked.order if name not in runs)
        planned.append(PlannedCell(index, runs, reuses, batch))
        held.update(cell.keys[name] for name in runs)
        if batch and batch.node in runs:
            held.update(batch.seeds)
    return Plan(tuple(planned), last_reads)


def _find_runs(cell: Cell, needed: Graph) -> tuple[str, ...]:
    """The needed nodes in order; of several with one key only the first runs."""
    first = {cell.keys[name]: name for name in reversed(cell.checked.order) if name in needed}
    return tuple(name for name in cell.checked.order if first.get(cell.keys[name]) == name)


def _order_cells(cells: Mapping[int, Cell]) -> list[int]:
    """Sort cells by the keys of their nodes, what is loaded or patched before the rest, in order of first appearance.

    Cells that share a model then follow one another, within them those that share a LoRA, then those that are sampled
    together, and so on; cells of equal rank stay as they were given.
    """
    ranks: dict[str, int] = {}
    paths = {}
    for index, cell in cells.items():
        loaded = [name for name in cell.checked.order if _is_loaded(cell.checked.signatures[name])]
        rest = [name for name in cell.checked.order if name not in loaded]
        together = [cell.batched.group] if cell.batched else []
        path = [*(cell.keys[name] for name in loaded), *together, *(cell.keys[name] for name in rest)]
        paths[index] = [ranks.setdefault(key, len(ranks)) for key in path]
    return sorted(cells, key=paths.__getitem__)


def _is_loaded(signature: Signature) -> bool:
    return any(output.type in LOADED_TYPES for output in signature.outputs)
