"""Content keys: equal where the outputs are, and different wherever anything else is."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from pipeline.engine.keys import find_known, make_key, settle
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.signature import OutputSpec, Signature

PLAIN = Signature("K", {}, (OutputSpec("LATENT", "LATENT"),))
NAMED = Signature("K", {}, (), depends_on_name=True)


def key(node: Node, signature: Signature = PLAIN, upstream: Any = None, fingerprint: Any = False, identity: Any = None):
    return make_key(node, signature, upstream or {"a": "1", "b": "2"}, fingerprint, identity)


def test_equal_inputs_give_equal_keys_whatever_their_order_and_the_name():
    one = Node("one", "K", {"x": 1, "y": {"a": [1, 2.5, None], "b": "t"}, "z": Link("a", 0)})
    other = Node("other", "K", {"z": Link("a", 0), "y": {"b": "t", "a": [1, 2.5, None]}, "x": 1})
    assert key(one) == key(other)
    assert key(one, NAMED) != key(other, NAMED)
    assert key(one, NAMED) == key(one, NAMED)


def test_whatever_differs_makes_another_key():
    node = Node("n", "K", {"x": 1, "z": Link("a", 0)})
    keys = [
        key(node),
        key(Node("n", "L", node.inputs)),
        key(Node("n", "K", {**node.inputs, "x": 2})),
        key(Node("n", "K", {"y": 1, "z": Link("a", 0)})),
        key(Node("n", "K", {**node.inputs, "z": Link("a", 1)})),
        key(Node("n", "K", {**node.inputs, "z": Link("b", 0)})),
        key(Node("n", "K", {**node.inputs, "z": ["link", "1", 0]})),
        key(node, upstream={"a": "3"}),
        key(node, fingerprint="f"),
        key(node, identity=["f"]),
    ]
    assert len(set(keys)) == len(keys)


VALUES = [
    1,
    1.0,
    True,
    "1",
    b"1",
    0.0,
    -0.0,
    None,
    "None",
    "",
    [],
    {},
    [1],
    [[1]],
    [1, 1],
    {"a": 1},
    {"a": [1]},
    {1: 1},
]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(VALUES, 2)))
def test_values_that_a_node_can_tell_apart_are_apart(one: Any, other: Any):
    assert settle(one) != settle(other)
    assert settle(one) == settle(one)


@pytest.mark.parametrize("value", [math.nan, float("nan"), [math.nan], {"a": math.nan}, torch.ones(1), object()])
def test_what_never_equals_anything_does_not_equal_itself(value: Any):
    assert settle(value) != settle(value)
    node = Node("n", "K", {"x": value})
    assert key(node) != key(node)
    assert key(Node("n", "K", {}), fingerprint=value) != key(Node("n", "K", {}), fingerprint=value)


def test_infinity_equals_itself():
    assert settle(math.inf) == settle(math.inf) != settle(-math.inf)


def test_an_output_node_is_never_known():
    nodes = {name: Node(name, "K", {}) for name in "abc"}
    signatures = {"a": PLAIN, "b": Signature("K", {}, (), is_output_node=True), "c": PLAIN}
    checked = CheckedGraph(Graph(nodes), signatures, ("a", "b", "c"), ("b",))
    assert find_known(checked, {"a": "1", "b": "2", "c": "3"}, {"1", "2"}) == {"a"}
