"""The sampling graph on the tiny Qwen-Image model."""

from __future__ import annotations

import pytest


@pytest.fixture
def sampling_nodes(session):
    """Makes the default graph, with settings of the sampler changed."""
    from dataclasses import replace

    from pipeline.config.read import compose_config, read_config
    from pipeline.graph.model import Graph

    def make(**sampler) -> Graph:
        graph = read_config(compose_config(["experiment=tiny", "sampler.steps=2"])).graph
        changed = replace(graph["sampler"], inputs={**graph["sampler"].inputs, **sampler})
        return Graph({**graph, "sampler": changed})

    return make
