"""Estimate how long the jobs of a sweep will take, from the times of earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.graph.model import Graph
from pipeline.runs.facts import list_constants
from pipeline.sweep.sweep import Sweep

RECALLED = 200
"""The number of earlier runs that are looked at."""

STEPS = "steps"
"""The input to which the time of a sampler is proportional."""


def expect_jobs(sweep: Sweep) -> dict[int, float | None]:
    """Return the seconds that each job that has to run is expected to take, by its place in the jobs of the sweep.

    A job has None if one of its nodes never ran. Without earlier runs the result is empty.
    """
    earlier = sweep.tracker.store.recall(RECALLED) if sweep.tracker else []
    if not earlier:
        return {}
    return {
        planned.index: expect_seconds(sweep.runs[planned.index].checked.graph, planned.runs, earlier)
        for planned in sweep.plan.cells
    }


def expect_seconds(graph: Graph, nodes: Sequence[str], earlier: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the seconds that `nodes` of `graph` are expected to take, or None if one of them is in no earlier run.

    `earlier` holds `params` and `metrics` of runs, the latest first. A node is expected to take as long as it took in
    the run that agrees with it in most inputs, in proportion to the sampling steps.
    """
    times = [_expect_node(graph, name, earlier) for name in nodes]
    known_times = [seconds for seconds in times if seconds is not None]
    return sum(known_times) if len(known_times) == len(times) else None


def _expect_node(graph: Graph, name: str, earlier: Sequence[Mapping[str, Any]]) -> float | None:
    inputs = list_constants(graph[name])
    runs_with_node = [run for run in earlier if f"seconds/{name}" in run["metrics"]]
    if not runs_with_node:
        return None
    nearest = max(runs_with_node, key=lambda run: sum(run["params"].get(path) == text for path, text in inputs.items()))
    seconds = float(nearest["metrics"][f"seconds/{name}"])
    steps, nearest_steps = inputs.get(f"{name}.{STEPS}"), nearest["params"].get(f"{name}.{STEPS}")
    return seconds * float(steps) / float(nearest_steps) if steps and nearest_steps else seconds
