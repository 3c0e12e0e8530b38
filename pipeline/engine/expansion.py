"""Nodes that expand into other nodes: their results, and which node expanded to which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.engine.comfyui.objects import NodeId
from pipeline.engine.comfyui.returns import Part, is_blocked
from pipeline.graph.api_format import is_link
from pipeline.graph.model import Link


def find_result_links(parts: Sequence[Part]) -> list[Link]:
    """Return links to the outputs that the results of an expansion are taken from."""
    return [
        Link(one[0], int(one[1])) for part in parts if part.nodes is not None for one in part.results if is_link(one)
    ]


def merge_results(
    parts: Sequence[Part], are_lists: Sequence[bool], fetch: Callable[[Link], list[Any]]
) -> list[list[Any]]:
    """Return the outputs of a node that expanded: a list of values for each slot, over all its calls.

    `are_lists` says which slots are list outputs, `fetch` returns the values of a linked output.
    """
    slots: list[list[Any]] = []
    for index in range(len(parts[0].results)):
        is_list = index < len(are_lists) and are_lists[index]
        values = [_read_result(part, part.results[index], is_list, fetch) for part in parts]
        slots.append([one for many in values for one in many])
    return slots


def _read_result(part: Part, result: Any, is_list: bool, fetch: Callable[[Link], list[Any]]) -> list[Any]:
    if part.nodes is not None and is_link(result):
        found = fetch(Link(result[0], int(result[1])))
        # A list output whose link gives a single list takes the entries of that list.
        unpacks = is_list and len(found) == 1 and isinstance(found[0], list | tuple)
        return list(found[0]) if unpacks else list(found)
    return list(result) if is_list and not is_blocked(result) else [result]


class Offspring:
    """The nodes that other nodes have expanded to, with their content keys.

    Their outputs and objects are retained as long as the node that expanded is in the graph, or in an expansion of it.

    Example:
        offspring.record(("loop", "ForLoop"), {("loop.0.0.1", "KSampler"): key})
        offspring.keep([("loop", "ForLoop")])  # {("loop.0.0.1", "KSampler"): key}
        offspring.keep([])  # {}: the loop is no longer in the graph
    """

    def __init__(self) -> None:
        self._children: dict[NodeId, dict[NodeId, str]] = {}

    def record(self, parent: NodeId, children: Mapping[NodeId, str]) -> None:
        """Record what `parent` expanded to in its last call."""
        self._children[parent] = dict(children)

    def keep(self, graph: Iterable[NodeId]) -> dict[NodeId, str]:
        """Forget all nodes but those that `graph` expanded to, at any depth; return these with their keys."""
        found: dict[NodeId, str] = {}
        retained: dict[NodeId, dict[NodeId, str]] = {}
        waiting = list(graph)
        while waiting:
            node = waiting.pop()
            if node in self._children and node not in retained:
                retained[node] = self._children[node]
                found.update(retained[node])
                waiting.extend(retained[node])
        self._children = retained
        return found

    def clear(self) -> None:
        """Forget all expansions."""
        self._children.clear()
