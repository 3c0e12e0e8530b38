"""Seed batches: which jobs of a sweep differ only in the seed of a KSampler, and which of them run in one call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.engine.comfyui.seed_batch import BATCHED_CLASS, WITHOUT_NOISE, SeedBatch
from pipeline.engine.keys import settle
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Link, Node

SEED = "seed"


@dataclass(frozen=True)
class BatchedSampler:
    """A KSampler that may run for the seeds of several jobs at once: those whose `group` is the same.

    seed: that of its own job; size: the most seeds in one call.
    """

    node: str
    group: str
    seed: int
    size: int


def find_batched(
    graphs: Mapping[int, CheckedGraph], keys: Mapping[int, Mapping[str, str]], sizes: Mapping[int, int]
) -> dict[int, BatchedSampler]:
    """The jobs, by place, whose first KSampler differs only in its seed from that of another job.

    `keys` are the content keys of the nodes of each job, `sizes` the most seeds in one call.
    """
    found: dict[int, BatchedSampler] = {}
    seeds: dict[str, set[int]] = {}
    for place, size in sizes.items():
        checked = graphs[place]
        samplers = (checked.graph[name] for name in checked.order if _can_be_batched(checked.graph[name]))
        node = next(samplers, None)
        if size > 1 and node is not None:
            seed = int(node.inputs[SEED])
            found[place] = BatchedSampler(node.name, _make_group_key(node, keys[place], size), seed, size)
            seeds.setdefault(found[place].group, set()).add(seed)
    return {place: one for place, one in found.items() if len(seeds[one.group]) > 1}


def plan_batches(cells: Mapping[int, tuple[Mapping[str, str], BatchedSampler | None]]) -> dict[int, SeedBatch]:
    """Cut the groups of cells into batches. `cells` have their content keys, and come in the order of execution."""
    seeds: dict[str, dict[str, int]] = {}
    members = {index: (keys[one.node], one) for index, (keys, one) in cells.items() if one}
    for key, one in members.values():
        seeds.setdefault(one.group, {})[key] = one.seed
    places = {key: place for group in seeds.values() for place, key in enumerate(group)}
    batches: dict[tuple[str, int], SeedBatch] = {}
    planned = {}
    for index, (key, one) in members.items():
        number = places[key] // one.size
        if (one.group, number) not in batches:
            part = list(seeds[one.group].items())[number * one.size : (number + 1) * one.size]
            batches[one.group, number] = SeedBatch(one.node, dict(part))
        planned[index] = batches[one.group, number]
    return planned


def list_unbatched_samplers(graphs: Mapping[int, CheckedGraph]) -> list[str]:
    """The values of `sampler_name` whose seeds have to run one by one."""
    names = {
        str(node.inputs.get("sampler_name")): None
        for checked in graphs.values()
        for node in checked.graph.values()
        if node.class_type == BATCHED_CLASS and not _can_be_batched(node)
    }
    return list(names)


def _can_be_batched(node: Node) -> bool:
    return (
        node.class_type == BATCHED_CLASS
        and node.inputs.get("sampler_name") in WITHOUT_NOISE
        and not isinstance(node.inputs.get(SEED), Link)
    )


def _make_group_key(node: Node, keys: Mapping[str, str], size: int) -> str:
    """What all inputs but the seed say. The name is part of it, because it is what the batch is run under."""
    inputs = [
        [name, [keys[value.node], value.output] if isinstance(value, Link) else settle(value)]
        for name, value in sorted(node.inputs.items())
        if name != SEED
    ]
    return hashlib.sha256(json.dumps([node.name, size, inputs]).encode()).hexdigest()
