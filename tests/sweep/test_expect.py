"""How long a job will take, by earlier runs."""

from __future__ import annotations

import pytest

from pipeline.graph.model import Graph, Link, Node
from pipeline.sweep.expect import expect_seconds

GRAPH = Graph(
    {
        "unet": Node("unet", "UNETLoader", {"unet_name": "a"}),
        "sampler": Node("sampler", "KSampler", {"model": Link("unet", 0), "steps": 8, "sampler_name": "heun"}),
    }
)


def run(steps: int, sampler_name: str, seconds: float) -> dict:
    params = {"sampler.steps": str(steps), "sampler.sampler_name": sampler_name, "unet.unet_name": "a"}
    return {"params": params, "metrics": {"seconds/sampler": seconds, "seconds/unet": 1.0}}


def test_the_run_that_agrees_most_tells():
    earlier = [run(8, "euler", 2.0), run(8, "heun", 5.0), run(4, "heun", 9.0)]
    assert expect_seconds(GRAPH, ["unet", "sampler"], earlier) == pytest.approx(6.0)


def test_time_goes_with_the_steps():
    assert expect_seconds(GRAPH, ["sampler"], [run(4, "heun", 2.0)]) == pytest.approx(4.0)


def test_the_latest_of_equals_tells():
    assert expect_seconds(GRAPH, ["sampler"], [run(8, "heun", 3.0), run(8, "heun", 4.0)]) == pytest.approx(3.0)


def test_a_node_that_never_ran_is_not_guessed():
    assert expect_seconds(GRAPH, ["unet", "sampler"], [{"params": {}, "metrics": {"seconds/unet": 1.0}}]) is None


def test_nothing_takes_no_time():
    assert expect_seconds(GRAPH, [], []) == 0
