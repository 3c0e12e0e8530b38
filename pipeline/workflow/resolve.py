"""Find the source of an input: through subgraphs, reroutes and bypassed nodes to a node that runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.errors import ConfigError, Problem
from pipeline.workflow.live import (
    BYPASSED,
    INPUTS,
    MUTED,
    OUTPUTS,
    REROUTE,
    LiveGraph,
    LiveNode,
    WorkflowLink,
)

WILDCARDS = ("*", "")


@dataclass(frozen=True)
class Scope:
    """One occurrence of a graph: the workflow itself, or a subgraph within one of its hosts.

    A subgraph with two hosts has two scopes. The scope of the workflow has no host.
    """

    graph: LiveGraph
    path: tuple[str, ...] = ()
    host: LiveNode | None = None
    outer: Scope | None = None

    def enter(self, host: LiveNode) -> Scope:
        """Return the scope inside a host."""
        assert host.subgraph
        return Scope(host.subgraph, (*self.path, host.id), host, self)

    def make_id(self, node: LiveNode) -> str:
        """Return the id of a node in the prompt: the ids of the hosts around it and its own, as in `12:3`."""
        return ":".join((*self.path, node.id))


@dataclass(frozen=True)
class Origin:
    """An output of a node; `node` is the node's id in the prompt, `slot` the index of the output."""

    node: str
    slot: int


@dataclass(frozen=True)
class Held:
    """The value that an input of a host holds."""

    value: Any


Source: TypeAlias = Origin | Held | None


def find_source(scope: Scope, node: LiveNode, slot: int, kept: Collection[str] = ()) -> Source:
    """Return what feeds an input: an output, a value that a host holds, or None if nothing does.

    A bypassed node is followed to its source, except if its id is in `kept`. Raises ConfigError if links form a circle.
    """
    wanted_type: str | None = None
    seen: set[tuple[tuple[str, ...], str, int]] = set()
    while True:
        input_key = (scope.path, node.id, slot)
        if input_key in seen:
            where = f"node {scope.make_id(node)} ({node.title})"
            raise ConfigError([Problem("dependency_cycle", where, f"input {node.slots[slot].name} feeds itself")])
        seen.add(input_key)
        link = scope.graph.links.get(node.slots[slot].link or "")
        if link is None:
            return _read_host_value(node, slot) if node.subgraph else None
        origin = scope.graph.nodes.get(link.origin)
        if link.origin != INPUTS and origin is not None:
            result = _enter(scope, origin, link.origin_slot, wanted_type or node.slots[slot].type, kept)
            if not isinstance(result, tuple):
                return result
            scope, node, slot, wanted_type = result
            continue
        outer, host = scope.outer, scope.host
        if outer is None or host is None:
            return None
        scope, node, slot, wanted_type = outer, host, link.origin_slot, None


def _read_host_value(host: LiveNode, slot: int) -> Source:
    return Held(host.values[slot]) if slot in host.values else None


def _enter(
    scope: Scope, node: LiveNode, output: int, wanted_type: str, kept: Collection[str]
) -> Source | tuple[Scope, LiveNode, int, str | None]:
    """Follow an output of a node to its source in the prompt, or to the input from which to continue.

    Such an input is returned as a tuple: its scope, node and index, and the type that the original input accepts. The
    type is None if that of the new input counts.
    """
    while True:
        if node.mode == MUTED:
            return None
        if node.mode == BYPASSED and scope.make_id(node) not in kept:
            index = _pick_slot(node, output, wanted_type)
            # The value that a bypassed host holds in an input without a link does not pass through.
            return None if index is None or node.slots[index].link is None else (scope, node, index, None)
        if node.subgraph is not None:
            inner, link = scope.enter(node), _find_output_link(node.subgraph, output)
            if link is None:
                return None
            if link.origin == INPUTS:
                return scope, node, link.origin_slot, None
            scope, output = inner, link.origin_slot
            if link.origin not in inner.graph.nodes:
                return None
            node = inner.graph.nodes[link.origin]
            continue
        if node.type == REROUTE:
            return (scope, node, 0, wanted_type) if node.slots else None
        return None if node.is_virtual else Origin(scope.make_id(node), output)


def _find_output_link(graph: LiveGraph, output: int) -> WorkflowLink | None:
    """Return the link in a subgraph that feeds an output of the subgraph, or None."""
    if output >= len(graph.outputs):
        return None
    links = [graph.links[one] for one in graph.outputs[output].links if one in graph.links]
    return next((link for link in links if link.target == OUTPUTS), None)


def _pick_slot(node: LiveNode, output: int, wanted_type: str) -> int | None:
    """Return the index of the input that a bypassed node passes through to an input of type `wanted_type`, or None.

    `output` is the linked output of the bypassed node. The rule is explained in `graph/bypass.py`.
    """
    if not node.slots:
        return None
    if wanted_type in WILDCARDS:
        return output if output < len(node.slots) else 0
    output_type = node.output_types[output] if output < len(node.output_types) else "*"
    compatible = [
        index
        for index, slot in enumerate(node.slots)
        if are_compatible(slot.type, output_type) and are_compatible(slot.type, wanted_type)
    ]
    if output in compatible:
        return output
    exact = [index for index, slot in enumerate(node.slots) if slot.type == wanted_type]
    return next(iter(exact + compatible), None)


def are_compatible(left: str, right: str) -> bool:
    """Return whether the GUI lets slots of two types be linked.

    Case is ignored, comma-separated types match if they have one in common, and a wildcard matches every type.
    """
    lefts, rights = (set(kind.lower().split(",")) for kind in (left, right))
    return bool(lefts & rights) or not {*WILDCARDS}.isdisjoint(lefts | rights)
