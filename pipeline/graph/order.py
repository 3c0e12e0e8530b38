"""Find out which nodes of a graph are needed, and in which order they run."""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Container, Iterable, Mapping

from pipeline.errors import CycleError
from pipeline.graph.model import Graph, Node


def cull(graph: Graph, targets: Iterable[str], known: Container[str] = ()) -> Graph:
    """Return the graph of only the nodes that `targets` need, in declared order.

    The outputs of `known` nodes exist already, so neither these nodes nor nodes that only they read are needed. Links
    to nodes that the graph does not have are ignored.

    Example:
        cull(graph, ["sampler"])  # the sampler and all nodes that it depends on
    """
    needed = find_needed(graph, targets, known)
    return Graph({name: node for name, node in graph.items() if name in needed})


def find_needed(nodes: Mapping[str, Node], targets: Iterable[str], known: Container[str] = ()) -> set[str]:
    """Return the names of the nodes that `targets` need and that are not `known`.

    The time is linear in the number of nodes found and their links.
    """
    needed: set[str] = set()
    waiting = list(targets)
    while waiting:
        name = waiting.pop()
        if name in needed or name in known or name not in nodes:
            continue
        needed.add(name)
        waiting.extend(link.node for _, link in nodes[name].links)
    return needed


def find_dependents(nodes: Mapping[str, Node], names: Iterable[str]) -> set[str]:
    """Return `names` and the names of all nodes that depend on one of them."""
    readers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for _, link in node.links:
            readers.setdefault(link.node, []).append(name)
    dependents: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in dependents:
            dependents.add(name)
            waiting += readers.get(name, [])
    return dependents


def sort_nodes(graph: Graph) -> tuple[str, ...]:
    """Return the names of the nodes in an order in which each node comes after those that it reads.

    Of the nodes that could be next, the one declared first is next. The time is linear in nodes and links, except for
    a heap of the nodes that are ready. Raises CycleError.
    """
    place = {name: index for index, name in enumerate(graph)}
    sorter = graphlib.TopologicalSorter(
        {name: [link.node for _, link in node.links if link.node in graph] for name, node in graph.items()}
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise CycleError(_start_at_first(error.args[1], place)) from None
    names, order, ready = list(graph), [], [place[name] for name in sorter.get_ready()]
    heapq.heapify(ready)
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        sorter.done(name)
        for following in sorter.get_ready():
            heapq.heappush(ready, place[following])
    return tuple(order)


def _start_at_first(circle: list[str], place: dict[str, int]) -> list[str]:
    """Rotate a circle, whose first node is repeated at the end, so that it starts at the node declared first."""
    ring = circle[:-1]
    start = ring.index(min(ring, key=place.__getitem__))
    return [*ring[start:], *ring[:start], ring[start]]
