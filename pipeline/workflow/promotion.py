"""Widgets promoted out of a subgraph: inputs of its hosts that hold a value, and the older `proxyWidgets`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pipeline.workflow.live import INPUTS, PRIMITIVE, Boundary, LiveGraph, LiveNode, Slot

PREFIX = re.compile(r"^\s*(\d+)\s*:\s*(.+)$", re.DOTALL)
ITSELF = "-1"  # the id by which an entry names an input of the host


def fill_host(host: LiveNode, again: bool = False) -> None:
    """Let the inputs of a host that own a value hold it: that of the widget inside, or the saved one.

    `again`: only those that came since.
    """
    assert host.subgraph
    for boundary in host.subgraph.inputs[len(host.slots) :]:
        host.slots.append(Slot(boundary.name, boundary.type))
    held = {index: held for index in range(len(host.slots)) if (held := _find_held(host.subgraph, index))}
    for index in held.keys() - host.values.keys():
        (host.values[index],) = held[index]
    saved = host.saved.get("widgets_values")
    if not again and isinstance(saved, list):
        host.values.update((index, value) for index, value in zip(held, saved, strict=False) if value is not None)


def _find_held(graph: LiveGraph, index: int) -> tuple[Any] | None:
    """The value inside that an input of a subgraph leads to; None if it leads to none, and so holds no value."""
    for target in map(graph.find_target, graph.inputs[index].links):
        if target is None:
            continue
        node, slot = target
        widget = node.find_widget(node.slots[slot].name)
        if widget is not None:
            return (widget.value,)
        if slot in node.values:
            return (node.values[slot],)
    return None


def migrate_promoted(host: LiveNode) -> None:
    """Turn a host's `proxyWidgets` into inputs of its subgraph that hold a value.

    An entry is [id of a node inside, its widget], perhaps with the id of the node deeper inside that has the widget.
    """
    entries = (host.saved.get("properties") or {}).get("proxyWidgets") or []
    values = host.saved.get("widgets_values")
    values = values if isinstance(values, list) else []
    primitives: dict[str, tuple[str, Any]] = {}
    fill_host(host, again=True)  # another host of the subgraph may have added an input to it
    for index, entry in enumerate(entries):
        value = values[index] if index < len(values) else None
        _migrate_entry(host, [str(part) for part in entry], value, primitives)
    for node_id, (name, value) in primitives.items():
        _replace_primitive(host, node_id, name, value)


def _migrate_entry(host: LiveNode, entry: Sequence[str], value: Any, primitives: dict[str, tuple[str, Any]]) -> None:
    assert host.subgraph
    node_id, name, deeper = entry[0], entry[1], entry[2] if len(entry) > 2 else None
    if node_id == ITSELF:
        _set(host, host.find_slot(name), value)
        return
    node = host.subgraph.nodes.get(node_id)
    if node is None or name.startswith("$$"):
        return
    if node.type == PRIMITIVE:
        known = primitives.get(node_id)
        if known is None or known[1] is None:
            primitives[node_id] = (name, value)
        return
    slot = _find_promoted(node, name, deeper)
    if slot is None:
        return
    index = _find_input(host.subgraph, node, slot)
    if index is None:
        index = _add_input(host.subgraph, PREFIX.sub(r"\2", name), node.slots[slot].type)
        _link_input(host.subgraph, index, node, slot)
        fill_host(host, again=True)
    _set(host, index, value)


def _set(host: LiveNode, index: int | None, value: Any) -> None:
    if index is not None and index in host.values and value is not None:
        host.values[index] = value


def _find_promoted(node: LiveNode, name: str, deeper: str | None) -> int | None:
    """The input of a node that an entry means: a widget's, or one of a nested host that holds a value."""
    while True:
        found = _find_nested(node, name, deeper) if node.subgraph else _find_own(node, name)
        match = PREFIX.match(name)
        if found is not None or match is None:
            return found
        deeper, name = match[1], match[2]


def _find_own(node: LiveNode, name: str) -> int | None:
    widget = node.find_widget(name)
    return node.find_slot(name) if widget is not None else None


def _find_nested(node: LiveNode, name: str, deeper: str | None) -> int | None:
    assert node.subgraph
    for index, slot in enumerate(node.slots):
        if index not in node.values:
            continue
        inner = _find_inner(node.subgraph, index)
        if deeper is not None:
            if inner and inner[0].id == deeper and inner[0].slots[inner[1]].name == name:
                return index
        elif slot.name == name or (inner and inner[0].slots[inner[1]].name == name):
            return index
    return None if deeper is None else _find_nested(node, name, None)


def _find_inner(graph: LiveGraph, index: int) -> tuple[LiveNode, int] | None:
    """The first node and input inside that an input of a subgraph leads to."""
    targets = (graph.find_target(link_id) for link_id in graph.inputs[index].links)
    return next((target for target in targets if target), None)


def _find_input(graph: LiveGraph, node: LiveNode, slot: int) -> int | None:
    """The input of the subgraph that feeds an input inside."""
    link = graph.links.get(node.slots[slot].link or "")
    return link.origin_slot if link and link.origin == INPUTS else None


def _add_input(graph: LiveGraph, name: str, kind: str) -> int:
    """Add an input to a subgraph; its name is made unique."""
    taken = {one.name for one in graph.inputs}
    number, unique = 1, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    graph.inputs.append(Boundary(unique, kind))
    return len(graph.inputs) - 1


def _link_input(graph: LiveGraph, index: int, node: LiveNode, slot: int) -> None:
    graph.inputs[index].links.append(graph.add_link(INPUTS, index, node, slot))


def _replace_primitive(host: LiveNode, node_id: str, name: str, value: Any) -> None:
    """Let an input of the subgraph take over all that a PrimitiveNode inside is linked to."""
    graph = host.subgraph
    assert graph
    primitive = graph.nodes[node_id]
    index = graph.replaced_primitives.get(node_id)
    if index is None:
        links = [link.id for link in graph.links.values() if link.origin == node_id]
        targets = [target for target in map(graph.find_target, links) if target]
        if not targets:
            return
        title = primitive.title if primitive.title != PRIMITIVE else name
        index = _add_input(graph, title, (primitive.output_types or ["*"])[0])
        graph.replaced_primitives[node_id] = index
        for node, slot in targets:
            _link_input(graph, index, node, slot)
        fill_host(host, again=True)
    saved = primitive.saved.get("widgets_values")
    own = saved[0] if isinstance(saved, list) and saved else None
    _set(host, index, own if value is None else value)
