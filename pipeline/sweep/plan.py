"""Plan a sweep: the order of its cells, the nodes that each cell has to run, and how long outputs are retained.

Nodes with the same content key have the same outputs (pipeline/engine/keys.py), whichever cell they are in. So a plan
is made from keys alone, before anything runs, in time linear in the number of nodes of all cells.
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
"""The types of outputs that are loaded or patched. They cost most to make again."""


@dataclass(frozen=True)
class Cell:
    """A job to plan: its checked graph, the content key of each node, and its sampler if that can run in a batch."""

    checked: CheckedGraph
    keys: Mapping[str, str]
    batched: BatchedSampler | None = None


@dataclass(frozen=True)
class PlannedCell:
    """One place in the order of execution.

    index: the place of the cell among the given cells.
    runs: the names of its nodes that run here.
    reuses: the names of its other nodes, whose outputs are known from this cell or an earlier one.
    batch: the seeds that are sampled together with its own, in this cell or an earlier one; None if there are none.
    """

    index: int
    runs: tuple[str, ...]
    reuses: tuple[str, ...]
    batch: SeedBatch | None = None


@dataclass(frozen=True)
class Plan:
    """The cells in the order of execution, and for each content key the last place where its outputs are read.

    Example:
        plan = plan_cells({0: Cell(checked, keys), 1: Cell(other_checked, other_keys)})
        plan.cells[1].runs  # ("sampler",) if the second cell differs from the first only in the seed
    """

    cells: tuple[PlannedCell, ...]
    last_reads: Mapping[str, int]

    def is_read_after(self, place: int, key: str) -> bool:
        """Return whether a cell after `place` reads the outputs of `key`. If none does, they can be released."""
        return self.last_reads.get(key, -1) > place


def plan_cells(cells: Mapping[int, Cell]) -> Plan:
    """Order the cells so that loaded and patched outputs are made once and released early, and plan what each one runs.

    `cells` are given by their places in Hydra's order.
    """
    known_keys: set[str] = set()
    planned = []
    last_reads: dict[str, int] = {}
    order = _order_cells(cells)
    batches = plan_batches({index: (cells[index].keys, cells[index].batched) for index in order})
    for place, index in enumerate(order):
        cell, batch = cells[index], batches.get(index)
        needed = cull(cell.checked.graph, cell.checked.targets, find_known(cell.checked, cell.keys, known_keys))
        last_reads.update((cell.keys[name], place) for name in cell.checked.targets)
        last_reads.update((cell.keys[link.node], place) for node in needed.values() for _, link in node.links)
        runs = _find_runs(cell, needed)
        reuses = tuple(name for name in cell.checked.order if name not in runs)
        planned.append(PlannedCell(index, runs, reuses, batch))
        known_keys.update(cell.keys[name] for name in runs)
        if batch and batch.node in runs:
            known_keys.update(batch.seeds)
    return Plan(tuple(planned), last_reads)


def _find_runs(cell: Cell, needed: Graph) -> tuple[str, ...]:
    """Return the names of the needed nodes in order; of several nodes with the same key only the first."""
    first = {cell.keys[name]: name for name in reversed(cell.checked.order) if name in needed}
    return tuple(name for name in cell.checked.order if first.get(cell.keys[name]) == name)


def _order_cells(cells: Mapping[int, Cell]) -> list[int]:
    """Return the cells sorted by the keys of their nodes, where keys rank in the order of their first appearance.

    The keys of loaded and patched outputs are compared first. So cells that share a model follow one another, within
    them those that share a LoRA, then those that are sampled together, and so on. Cells of equal rank stay in the given
    order.
    """
    ranks: dict[str, int] = {}
    paths = {}
    for index, cell in cells.items():
        loaded = [name for name in cell.checked.order if _is_loaded(cell.checked.signatures[name])]
        rest = [name for name in cell.checked.order if name not in loaded]
        batch_group = [cell.batched.group] if cell.batched else []
        path = [*(cell.keys[name] for name in loaded), *batch_group, *(cell.keys[name] for name in rest)]
        paths[index] = [ranks.setdefault(key, len(ranks)) for key in path]
    return sorted(cells, key=paths.__getitem__)


def _is_loaded(signature: Signature) -> bool:
    return any(output.type in LOADED_TYPES for output in signature.outputs)
