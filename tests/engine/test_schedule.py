"""The order in which nodes run, and the policies of the cache."""

from __future__ import annotations

import pytest

from pipeline.config.read import read_config
from pipeline.engine.cache_policy import CachePolicy
from pipeline.engine.schedule import Schedule


def dissolve(schedule: Schedule) -> list[str]:
    order = []
    while (name := schedule.pop()) is not None:
        schedule.finish(name)
        order.append(name)
    return order


def test_a_branch_is_finished_before_another_begins_and_urgent_nodes_go_first():
    schedule = Schedule()
    for place, (name, waits) in enumerate({"a": "", "b": "", "c": "a", "d": "b", "e": "c"}.items()):
        schedule.add(name, place, False, waits)
    schedule.add("urgent", 9, True, "a")
    assert dissolve(schedule) == ["a", "urgent", "c", "e", "b", "d"]
    assert not schedule


def test_a_node_can_wait_again_and_nodes_that_wait_for_each_other_are_named():
    schedule = Schedule()
    schedule.add("a", 0, False, "")
    assert schedule.pop() == "a"
    schedule.add("b", 1, False, "a")
    schedule.wait("a", "b")
    assert schedule.pop() is None
    assert schedule.find_circle() in (["a", "b", "a"], ["b", "a", "b"])


@pytest.mark.parametrize("text", ["classic", "all", "none", "lru:1", "lru:20"])
def test_policies_are_read(text):
    policy = CachePolicy.parse(text)
    assert text == (f"{policy.name}:{policy.size}" if policy.size else policy.name)


@pytest.mark.parametrize("text", ["", "lru", "lru:0", "lru:x", "ALL"])
def test_another_policy_is_a_problem_of_the_config(text):
    (problem,) = read_config({"run": {"cache": text}}).problems
    assert str(problem) == f"run.cache: must be classic, all, lru:N or none, got {text!r}"
