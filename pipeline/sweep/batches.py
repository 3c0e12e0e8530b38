"""Plan seed batches: jobs of a sweep that differ only in the seed of a KSampler can be sampled in one call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.engine.comfyui.seed_batch import BATCHED_CLASS, MODELS_APART, WITHOUT_NOISE, SeedBatch
from pipeline.engine.keys import settle
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Link, Node
from pipeline.graph.order import find_needed

SEED = "seed"


@dataclass(frozen=True)
class BatchedSampler:
    """A KSampler that can run for the seeds of several jobs in one call.

    group: equal for the samplers that can run together.
    seed: the seed of its own job.
    size: the largest number of seeds in one call.
    """

    node: str
    group: str
    seed: int
    size: int


def find_batched(
    graphs: Mapping[int, CheckedGraph], keys: Mapping[int, Mapping[str, str]], sizes: Mapping[int, int]
) -> dict[int, BatchedSampler]:
    """Return, by the place of the job, the samplers that differ only in the seed from the sampler of another job.

    The sampler of a job is the first KSampler in its order of execution that can run in a batch.

    graphs, keys: the checked graphs and the content keys of the nodes, by the place of the job.
    sizes: the largest number of seeds in one call, by the place of the job.
    """
    batched: dict[int, BatchedSampler] = {}
    seeds: dict[str, set[int]] = {}
    for place, size in sizes.items():
        checked = graphs[place]
        samplers = (checked.graph[name] for name in checked.order if _can_be_batched(checked.graph[name]))
        node = next((sampler for sampler in samplers if not find_other_models(checked, sampler)), None)
        if size > 1 and node is not None:
            seed = int(node.inputs[SEED])
            batched[place] = BatchedSampler(node.name, _make_group_key(node, keys[place], size), seed, size)
            seeds.setdefault(batched[place].group, set()).add(seed)
    return {place: sampler for place, sampler in batched.items() if len(seeds[sampler.group]) > 1}


def plan_batches(cells: Mapping[int, tuple[Mapping[str, str], BatchedSampler | None]]) -> dict[int, SeedBatch]:
    """Return the batch of each cell that is sampled in one.

    `cells` holds the content keys and the sampler of each cell, in the order of execution. Each group of cells is cut
    into batches of at most the size that its samplers allow.
    """
    seeds: dict[str, dict[str, int]] = {}
    members = {index: (keys[sampler.node], sampler) for index, (keys, sampler) in cells.items() if sampler}
    for key, sampler in members.values():
        seeds.setdefault(sampler.group, {})[key] = sampler.seed
    # A key has the same place for all cells that share its result, so that they are in one batch.
    places = {key: place for group in seeds.values() for place, key in enumerate(group)}
    batches: dict[tuple[str, int], SeedBatch] = {}
    planned = {}
    for index, (key, sampler) in members.items():
        number = places[key] // sampler.size
        if (sampler.group, number) not in batches:
            batch_seeds = list(seeds[sampler.group].items())[number * sampler.size : (number + 1) * sampler.size]
            batches[sampler.group, number] = SeedBatch(sampler.node, dict(batch_seeds))
        planned[index] = batches[sampler.group, number]
    return planned


def explain_unbatched(graphs: Mapping[int, CheckedGraph]) -> list[str]:
    """Return why the seeds of some KSamplers have to run one by one, as one phrase for each reason."""
    reasons: dict[str, None] = {}
    for checked in graphs.values():
        for node in checked.graph.values():
            if node.class_type == BATCHED_CLASS and not _can_be_batched(node):
                reasons[f"{node.inputs.get('sampler_name')} draws noise while it steps, or may"] = None
            elif node.class_type == BATCHED_CLASS and (others := find_other_models(checked, node)):
                reasons[f"{', '.join(others)} may treat a batch as a whole"] = None
    return list(reasons)


def find_other_models(checked: CheckedGraph, sampler: Node) -> list[str]:
    """Return the class_types of nodes from which a KSampler has its model and which may treat a batch as a whole.

    Only the classes in MODELS_APART are known to treat each latent of a batch by itself.
    """
    model = sampler.inputs.get("model")
    needed = find_needed(checked.graph, [model.node] if isinstance(model, Link) else [])
    class_types = {
        checked.graph[name].class_type
        for name in needed
        if any(output.type == "MODEL" for output in checked.signatures[name].outputs)
    }
    return sorted(class_types - MODELS_APART)


def _can_be_batched(node: Node) -> bool:
    return (
        node.class_type == BATCHED_CLASS
        and node.inputs.get("sampler_name") in WITHOUT_NOISE
        and not isinstance(node.inputs.get(SEED), Link)
    )


def _make_group_key(node: Node, keys: Mapping[str, str], size: int) -> str:
    """Return a hash of all inputs but the seed, of the batch size and of the node's name.

    The name is part of it because the batch runs under that name.
    """
    inputs = [
        [name, [keys[value.node], value.output] if isinstance(value, Link) else settle(value)]
        for name, value in sorted(node.inputs.items())
        if name != SEED
    ]
    return hashlib.sha256(json.dumps([node.name, size, inputs]).encode()).hexdigest()
