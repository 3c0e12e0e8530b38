"""Several seeds in one call of the real KSampler, on the demo model: each as if it ran alone."""

from __future__ import annotations

import functools

import pytest
import torch

from pipeline.config.read import compose_config, read_config
from pipeline.engine.comfyui.seed_batch import WITHOUT_NOISE, SeedBatch
from pipeline.errors import NodeError
from pipeline.graph.model import Graph, Link, Node

SEEDS = (1, 7, 2**63 - 9)
LAST_DIGITS = 1e-4
"""What the order of sums may change in a latent of standard deviation 1."""


@functools.cache
def compose_graph() -> Graph:
    return read_config(compose_config()).graph


def make_graph(seed: int, **settings) -> Graph:
    """The default graph, with other inputs of its sampler."""
    sampler = compose_graph()["sampler"]
    inputs = {**sampler.inputs, **settings, "seed": seed}
    return Graph({**compose_graph(), "sampler": Node("sampler", sampler.class_type, inputs)})


@pytest.fixture
def sample(session):
    """Samples seeds of a graph, one by one or all in one batch; a latent for each."""

    def run(batched: bool, change=lambda graph: graph, given_up=False, **settings) -> list[torch.Tensor]:
        settings = {"steps": 4, "cfg": 2.0, **settings}
        graphs = [session.check(change(make_graph(seed, **settings)), ["sampler"]) for seed in SEEDS]
        keys = [session.make_keys(graph, "sampler" if batched else "")["sampler"] for graph in graphs]
        batch = SeedBatch("sampler", dict(zip(keys, SEEDS, strict=True))) if batched else None
        latents = []
        for place, graph in enumerate(graphs):
            done = set(keys[: place + 1])
            execution = session.run(graph, is_read_later=lambda key, done=done: key not in done, batch=batch)
            assert ("sampler" in execution.executed) == (place == 0 or not batched or given_up)
            assert execution.batch == (None if given_up else batch)
            latents.append(execution.outputs["sampler"].outputs[0][0]["samples"])
        return latents

    return run


def assert_equal_but_for_the_last_digits(ours: list[torch.Tensor], single: list[torch.Tensor]) -> None:
    assert len(ours) == len(single) == len(SEEDS)
    for one, other in zip(ours, single, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= LAST_DIGITS * max(1.0, float(other.abs().max()))
    assert not torch.allclose(single[0], single[1], atol=0.1)


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # deis of ComfyUI
@pytest.mark.parametrize("name", sorted(WITHOUT_NOISE))
def test_a_batch_gives_each_seed_what_it_gives_alone(sample, name):
    assert_equal_but_for_the_last_digits(sample(True, sampler_name=name), sample(False, sampler_name=name))


@pytest.mark.parametrize(("amount", "given_up"), [(1, False), (2, True)])
def test_a_masked_latent_is_repeated_and_several_latents_are_sampled_without_a_batch(sample, amount, given_up):
    def change(graph: Graph) -> Graph:
        source = graph["sampler"].inputs["latent_image"]
        nodes = {
            "two": Node("two", "RepeatLatentBatch", {"samples": source, "amount": amount}),
            "mask": Node("mask", "SolidMask", {"value": 0.5, "width": 16, "height": 16}),
            "masked": Node("masked", "SetLatentNoiseMask", {"samples": Link("two", 0), "mask": Link("mask", 0)}),
            "sampler": Node("sampler", "KSampler", {**graph["sampler"].inputs, "latent_image": Link("masked", 0)}),
        }
        return Graph({**graph, **nodes})

    ours = sample(True, change, given_up, denoise=0.7)
    assert all(len(one) == amount for one in ours)
    assert_equal_but_for_the_last_digits(ours, sample(False, change, denoise=0.7))


def test_the_names_are_comfyuis(session):
    import comfy.samplers

    assert set(comfy.samplers.SAMPLER_NAMES) > WITHOUT_NOISE


def test_several_conditionings_are_sampled_without_a_batch(sample):
    """ComfyUI cuts the second for a single latent, and would give it to the second seed of a batch."""

    def change(graph: Graph) -> Graph:
        # As a tensor [2, ...] of two captions would come: an entry of the list for each is another thing.
        nodes = {"two": Node("two", "ProbeDouble", {"conditioning": graph["sampler"].inputs["positive"]})}
        nodes["sampler"] = Node("sampler", "KSampler", {**graph["sampler"].inputs, "positive": Link("two", 0)})
        return Graph({**graph, **nodes})

    for one, other in zip(sample(True, change, True), sample(False, change), strict=True):
        assert torch.equal(one, other)


def check_seed(session, seed: int, change=lambda graph: graph, batched: bool = True):
    """A graph with that seed, checked, and the content key of its sampler."""
    graph = session.check(change(make_graph(seed, steps=1)), ["sampler"])
    return graph, session.make_keys(graph, "sampler" if batched else "")["sampler"]


def test_no_run_takes_a_latent_of_a_batch_for_one_that_was_sampled_alone(session):
    session.clear()
    (first, key), (second, other) = check_seed(session, 1), check_seed(session, 2)
    batch = SeedBatch("sampler", {key: 1, other: 2})
    session.run(first, is_read_later=lambda key: True, batch=batch)
    assert "sampler" in session.run(second, is_read_later=lambda key: True).executed
    again = session.run(second, is_read_later=lambda key: True, batch=batch)
    assert (again.executed, again.batch) == ((), batch)


def test_a_blocked_batch_leaves_nothing_to_its_other_seeds(session):
    def change(graph: Graph) -> Graph:
        sampler = Node("sampler", "KSampler", {**graph["sampler"].inputs, "latent_image": Link("block", 0)})
        return Graph({**graph, "block": Node("block", "ProbeBlock", {"message": "not today"}), "sampler": sampler})

    session.clear()
    (first, key), (second, other) = check_seed(session, 1, change), check_seed(session, 2, change)
    batch = SeedBatch("sampler", {key: 1, other: 2})
    for graph in (first, second):
        with pytest.raises(NodeError, match="sampler: KSampler failed: ExecutionBlocked"):
            session.run(graph, is_read_later=lambda key: True, batch=batch)


def test_a_batch_that_is_too_large_is_tried_once(session, monkeypatch):
    tried = []

    def repeat(batch, latents):
        tried.append(len(batch.seeds))
        raise torch.cuda.OutOfMemoryError("no memory is left")

    monkeypatch.setattr(SeedBatch, "repeat", repeat)
    session.clear()
    checked = [check_seed(session, seed) for seed in (11, 12, 13)]
    seeds = {key: seed for (_, key), seed in zip(checked, (11, 12, 13), strict=True)}
    batch, loads = SeedBatch("sampler", seeds), 0
    for graph, _ in checked:
        execution = session.run(graph, is_read_later=lambda key: key not in seeds, batch=batch)
        loads += "unet" in execution.executed
        assert execution.batch is None
    assert tried == [3]
    assert loads == 1


def test_a_batch_that_was_given_up_is_not_said_of_what_follows_from_it(session):
    """The sampler's latent is gone when the second run reads what was made of it."""

    def change(multiplier: float):
        def change(graph: Graph) -> Graph:
            nodes = {
                "two": Node("two", "RepeatLatentBatch", {"samples": Link("latent", 0), "amount": 2}),
                "sampler": Node("sampler", "KSampler", {**graph["sampler"].inputs, "latent_image": Link("two", 0)}),
                "same": Node("same", "LatentMultiply", {"samples": Link("sampler", 0), "multiplier": 1.0}),
                "last": Node("last", "LatentMultiply", {"samples": Link("same", 0), "multiplier": multiplier}),
            }
            return Graph({**graph, **nodes})

        return change

    session.clear()
    batches = []
    for multiplier in (1.0, 0.5):
        graph = read_config(compose_config(["seed=1", "sampler.steps=1"])).graph
        checked = session.check(change(multiplier)(graph), ["last"])
        keys = session.make_keys(checked, "sampler")
        batch = SeedBatch("sampler", {keys["sampler"]: 1, "another key": 2})
        execution = session.run(checked, is_read_later=lambda key, keys=keys: key == keys["same"], batch=batch)
        batches.append(execution.batch)
    assert "sampler" not in execution.executed
    assert batches == [None, None]


def test_a_batch_that_was_planned_for_other_inputs_is_given_up(session):
    graph = session.check(read_config(compose_config(["sampler.steps=1"])).graph, ["sampler"])
    execution = session.run(graph, batch=SeedBatch("sampler", {"another key": 1}))
    assert execution.batch is None
