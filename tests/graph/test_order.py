"""Which nodes run, and in which order."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, CycleError
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.order import cull, sort_nodes


def make_graph(reads: dict[str, str]) -> Graph:
    """`{"b": "a a c"}`: b has three inputs, which read a, a and c."""
    return Graph(
        {
            name: Node(name, "K", {"steps": 4, **{f"in_{i}": Link(one, 0) for i, one in enumerate(sources.split())}})
            for name, sources in reads.items()
        }
    )


def read_sources(graph: Graph) -> dict[str, set[str]]:
    return {name: {link.node for _, link in node.links if link.node in graph} for name, node in graph.items()}


@st.composite
def graphs(draw: st.DrawFn, acyclic: bool = True) -> Graph:
    """Up to eight nodes, declared in any order."""
    count = draw(st.integers(1, 8))
    nodes = st.integers(0, count - 1)
    links = draw(st.lists(st.tuples(nodes, nodes), max_size=16))
    if acyclic:
        links = [(max(link), min(link)) for link in links if link[0] != link[1]]
    order = draw(st.permutations(range(count)))
    return make_graph({f"n{one}": " ".join(f"n{source}" for reader, source in links if reader == one) for one in order})


# Culling


@pytest.mark.parametrize(
    ("targets", "kept"),
    [
        (["sampler"], "unet lora cond sampler"),
        (["lora"], "unet lora"),
        (["unet"], "unet"),
        (["save"], "unet lora cond sampler save"),
        (["other", "lora"], "unet lora other"),
        (["nowhere"], ""),
        (["nowhere", "cond", "cond"], "cond"),
        ([], ""),
    ],
)
def test_cull_keeps_what_the_targets_need_in_declared_order(targets: list[str], kept: str) -> None:
    graph = make_graph(
        {"save": "sampler", "unet": "", "lora": "unet", "cond": "", "sampler": "lora cond cond", "other": "gone"}
    )
    culled = cull(graph, targets)
    assert list(culled) == [name for name in graph if name in kept.split()]
    assert all(culled[name] is graph[name] for name in culled)


@settings(deadline=None, max_examples=60)
@given(graphs(acyclic=False), st.data())
def test_cull_keeps_exactly_the_ancestors(graph: Graph, data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.sampled_from([*graph, "nowhere"]), max_size=3))
    sources = read_sources(graph)
    ancestors = set(targets) & set(graph)
    for _ in graph:  # as many rounds as the longest way could have
        ancestors |= {source for name in ancestors for source in sources[name]}
    culled = cull(graph, targets)
    assert list(culled) == [name for name in graph if name in ancestors]
    assert cull(culled, targets) == culled


# Order


@pytest.mark.parametrize(
    ("reads", "order"),
    [
        ({}, ""),
        ({"a": ""}, "a"),
        ({"c": "", "a": "", "b": ""}, "c a b"),
        ({"sampler": "lora", "lora": "unet", "unet": ""}, "unet lora sampler"),
        ({"d": "b c", "c": "a", "b": "a", "a": ""}, "a c b d"),
        ({"b": "a a a", "a": ""}, "a b"),
        ({"b": "gone", "a": "b"}, "b a"),
        ({"a": "", "b": "a", "c": ""}, "a b c"),  # already in order
        ({"unet_1": "", "lora_1": "unet_1", "unet_2": "", "lora_2": "unet_2"}, "unet_1 lora_1 unet_2 lora_2"),
    ],
)
def test_the_order_of_some_graphs(reads: dict[str, str], order: str) -> None:
    assert sort_nodes(make_graph(reads)) == tuple(order.split())


@settings(deadline=None, max_examples=60)
@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_any_graph(graph: Graph, shuffle: random.Random) -> None:
    order, place, sources = sort_nodes(graph), list(graph), read_sources(graph)
    assert sorted(order) == sorted(graph)
    assert all(sources[name] <= set(order[:index]) for index, name in enumerate(order)), "not topological"
    swapped = [
        (left, right)
        for left, right in pairwise(order)
        if left not in sources[right] and place.index(left) > place.index(right)
    ]
    assert not swapped, "neighbours that could swap are not in their declared order"
    assert sort_nodes(Graph({name: graph[name] for name in order})) == order, "a sorted graph changes its order"
    assert sort_nodes(Graph({name: disturb(node, shuffle) for name, node in graph.items()})) == order


def disturb(node: Node, shuffle: random.Random) -> Node:
    """The same node with its inputs in another order, and each link twice."""
    items = [*node.inputs.items(), *((f"{name}_again", link) for name, link in node.links)]
    shuffle.shuffle(items)
    return Node(node.name, node.class_type, dict(items))


def test_a_long_chain_is_sorted_and_culled_in_linear_time_and_without_recursion() -> None:
    names = [f"n{index}" for index in range(5_000)]
    graph = make_graph({name: names[i + 1] if i + 1 < len(names) else "" for i, name in enumerate(names)})
    began = time.perf_counter()
    assert sort_nodes(graph) == tuple(reversed(names))
    assert len(cull(graph, ["n0"])) == len(names)
    assert time.perf_counter() - began < 2


# Cycles


@pytest.mark.parametrize(
    ("reads", "circle"),
    [
        ({"sampler": "refine", "refine": "sampler"}, "sampler -> refine -> sampler"),
        ({"unet": "", "refine": "sampler unet", "sampler": "refine unet"}, "refine -> sampler -> refine"),
        ({"a": "a"}, "a -> a"),
        ({"end": "b", "a": "b", "b": "a"}, "a -> b -> a"),
        ({"a": "c", "b": "a", "c": "b"}, "a -> b -> c -> a"),  # in the direction of the data
        ({"c": "b", "a": "c", "b": "a"}, "c -> a -> b -> c"),  # from the node declared first
        ({"start": "", "x": "start y", "y": "x", "end": "y"}, "x -> y -> x"),
    ],
)
def test_a_cycle_is_named_from_its_first_declared_node_along_the_links(reads: dict[str, str], circle: str) -> None:
    with pytest.raises(CycleError) as caught:
        sort_nodes(make_graph(reads))
    assert str(caught.value) == f"graph has a cycle: {circle}"
    assert caught.value.nodes == tuple(circle.split(" -> "))
    assert isinstance(caught.value, ConfigError)
    assert [problem.code for problem in caught.value.problems] == ["dependency_cycle"]


@settings(deadline=None, max_examples=60)
@given(graphs(acyclic=False))
def test_there_is_an_error_just_if_there_is_a_cycle_and_it_names_one(graph: Graph) -> None:
    sources = read_sources(graph)
    left = dict(sources)
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    try:
        order = sort_nodes(graph)
    except CycleError as error:
        assert left, "an error without a cycle"
        first, *rest = error.nodes
        assert first == rest[-1]
        assert len(set(rest)) == len(rest)
        assert min(rest, key=list(graph).index) == first
        assert all(source in sources[reader] for source, reader in zip(error.nodes, rest, strict=False))
    else:
        assert not left, f"no error, but {order}"
