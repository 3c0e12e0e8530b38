"""Several seeds in one call of the real KSampler, on the demo model: each as if it ran alone."""

from __future__ import annotations

import pytest
import torch

from pipeline.config import compose_config, read_config
from pipeline.engine.comfyui.seed_batch import WITHOUT_NOISE, SeedBatch
from pipeline.graph.model import Graph, Link, Node

SEEDS = (1, 7, 2**63 - 9)
LAST_DIGITS = 1e-4
"""What the order of sums may change in a latent of standard deviation 1."""


@pytest.fixture
def sample(session):
    """Samples seeds of a graph, one by one or all in one batch; a latent for each."""

    def run(batched: bool, change=lambda graph: graph, **settings) -> list[torch.Tensor]:
        settings = {"steps": 4, "cfg": 2.0, **settings}
        overrides = [f"sampler.{name}={value}" for name, value in settings.items()]
        nodes = [read_config(compose_config([*overrides, f"seed={seed}"])).graph for seed in SEEDS]
        graphs = [session.check(change(graph), ["sampler"]) for graph in nodes]
        keys = [session.make_keys(graph)["sampler"] for graph in graphs]
        batch = SeedBatch("sampler", dict(zip(keys, SEEDS, strict=True))) if batched else None
        latents = []
        for place, graph in enumerate(graphs):
            done = set(keys[: place + 1])
            execution = session.run(graph, is_read_later=lambda key, done=done: key not in done, batch=batch)
            assert ("sampler" in execution.executed) == (place == 0 or not batched)
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


def test_latents_of_several_frames_are_repeated_whole_and_masked(sample):
    def change(graph: Graph) -> Graph:
        source = graph["sampler"].inputs["latent_image"]
        nodes = {
            "two": Node("two", "RepeatLatentBatch", {"samples": source, "amount": 2}),
            "mask": Node("mask", "SolidMask", {"value": 0.5, "width": 16, "height": 16}),
            "masked": Node("masked", "SetLatentNoiseMask", {"samples": Link("two", 0), "mask": Link("mask", 0)}),
            "sampler": Node("sampler", "KSampler", {**graph["sampler"].inputs, "latent_image": Link("masked", 0)}),
        }
        return Graph({**graph, **nodes})

    ours = sample(True, change, denoise=0.7)
    assert all(len(one) == 2 for one in ours)
    assert not torch.allclose(ours[0][0], ours[0][1], atol=0.1)
    assert_equal_but_for_the_last_digits(ours, sample(False, change, denoise=0.7))


def test_the_names_are_comfyuis(session):
    import comfy.samplers

    assert set(comfy.samplers.SAMPLER_NAMES) > WITHOUT_NOISE
