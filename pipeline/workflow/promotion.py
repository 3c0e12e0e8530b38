"""Set up the widgets that are promoted out of a subgraph.

A host holds the value of a promoted widget in one of its inputs. Older workflows list promoted widgets in the property
`proxyWidgets` of the host, as entries [node id, widget name]; they are converted to such inputs. The steps have the
order of the front end (SubgraphNode, proxyWidgetMigration), because it decides which value counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.workflow.definitions import read_choices
from pipeline.workflow.live import COMBOS, INPUTS, PRIMITIVE, Boundary, LiveGraph, LiveNode, Slot, Widget

PREFIX = re.compile(r"^\s*(\d+)\s*:\s*(.+)$", re.DOTALL)
ITSELF = "-1"  # the node id in entries that mean an input of the host
REPLACED = "proxyBypassedToSubgraphInput"  # the property that names the input that replaces a PrimitiveNode


def fill_host(host: LiveNode, again: bool = False) -> None:
    """Set the value of each input of a host that leads to a widget inside: the saved one, or that of the widget.

    With `again`, only the inputs that the subgraph has got since the last call are set, to the value of the widget.
    """
    assert host.subgraph
    for boundary in host.subgraph.inputs[len(host.slots) :]:
        host.slots.append(Slot(boundary.name, boundary.type))
    inner = {index: inner for index in range(len(host.slots)) if (inner := _find_inner_value(host.subgraph, index))}
    for index in inner.keys() - host.values.keys():
        (host.values[index],) = inner[index]
    if again:
        return
    saved = host.saved.get("widgets_values")
    host.values.update(zip(inner, saved if isinstance(saved, list) else (), strict=False))
    by_name = _read_quarantine(host)
    host.values.update((index, by_name[host.slots[index].name]) for index in inner if host.slots[index].name in by_name)


def _find_inner_value(graph: LiveGraph, index: int) -> tuple[Any] | None:
    """Return, as a tuple of one, the value to which an input of a subgraph leads: of a widget or of a nested host.

    Return None if it leads to no value, so that a host holds none for it.
    """
    for node, slot in _list_targets(graph, index):
        widget = node.find_widget(node.slots[slot].name)
        if widget is not None:
            return (widget.value,)
        if slot in node.values:
            return (node.values[slot],)
    return None


def _list_targets(graph: LiveGraph, index: int) -> Iterator[tuple[LiveNode, int]]:
    """Yield the nodes, and the indices of their inputs, that an input of a subgraph feeds."""
    yield from filter(None, map(graph.find_target, graph.inputs[index].links))


def _read_quarantine(host: LiveNode) -> dict[str, Any]:
    """Return values by input name from the property in which the front end puts entries that it could not place."""
    entries = (host.saved.get("properties") or {}).get("proxyWidgetErrorQuarantine") or []
    return {
        entry["originalEntry"][1]: entry["hostValue"]
        for entry in reversed(entries)
        if str(entry["originalEntry"][0]) == ITSELF and entry.get("hostValue") is not None
    }


@dataclass(frozen=True)
class _Entry:
    """An entry of `proxyWidgets`: a widget of a node in the subgraph, and its value.

    deeper: the id of a node inside `node`, if `node` is itself a host and the entry names the widget of such a node.
    input: the index of the host's input that leads to the widget already, if there is one.
    """

    node: str
    name: str
    deeper: str | None
    value: Any
    input: int | None


def migrate_promoted(host: LiveNode) -> None:
    """Convert a host's `proxyWidgets` to inputs of its subgraph, whose values the host holds."""
    assert host.subgraph
    fill_host(host, again=True)  # another host of the subgraph may have added an input to it
    entries = list(_read_entries(host))
    primitives: dict[str, list[_Entry]] = {}
    for entry in entries:
        node = host.subgraph.nodes.get(entry.node)
        if entry.input is not None:
            _set_value(host, entry.input, entry.value)
        elif node is not None and node.type == PRIMITIVE:
            primitives.setdefault(node.id, []).append(entry)
        elif node is not None:
            _add_promoted(host, node, entry)
    for node_id, group in primitives.items():
        _replace_primitive(host, host.subgraph.nodes[node_id], group)
    for entry in (one for one in entries if one.node == ITSELF):
        _set_value(host, host.find_slot(entry.name), entry.value)


def _read_entries(host: LiveNode) -> Iterator[_Entry]:
    values = host.saved.get("widgets_values")
    values = values if isinstance(values, list) else []
    for index, entry in enumerate((host.saved.get("properties") or {}).get("proxyWidgets") or ()):
        node, name = str(entry[0]), str(entry[1])
        deeper = str(entry[2]) if len(entry) > 2 else None
        if not _leads_to_widget(host, node, name):
            while match := PREFIX.match(name):
                deeper, name = match[1], match[2]
        value = values[index] if index < len(values) else None
        yield _Entry(node, name, deeper, value, _find_input(host, node, name))


def _leads_to_widget(host: LiveNode, node_id: str, name: str) -> bool:
    """Return whether a node in the subgraph has that widget, or is a host whose input of that name leads to one."""
    assert host.subgraph
    node = host.subgraph.nodes.get(node_id)
    if node is None or node.subgraph is None:
        return node is not None and node.find_widget(name) is not None
    slot = node.find_slot(name)
    inner = None if slot is None else _find_inner(node.subgraph, slot)
    return inner is not None and _leads_to_widget(node, inner[0].id, inner[1])


def _find_inner(graph: LiveGraph, index: int) -> tuple[LiveNode, str] | None:
    """Return the first widget that an input of a subgraph feeds, as its node and its name, or None.

    The inputs of a host count as widgets here.
    """
    for node, slot in _list_targets(graph, index):
        name = node.slots[slot].name
        if node.subgraph is not None or node.find_widget(name) is not None:
            return node, name
    return None


def _find_input(host: LiveNode, node_id: str, name: str) -> int | None:
    """Return the index of the host's input that leads to that widget or input of a node in the subgraph, or None."""
    assert host.subgraph
    for index in range(len(host.slots)):
        inner = _find_inner(host.subgraph, index)
        if inner is not None and (inner[0].id, inner[1]) == (node_id, name):
            return index
    node = host.subgraph.nodes.get(node_id)
    replaced = (node.saved.get("properties") or {}).get(REPLACED) if node and node.type == PRIMITIVE else None
    replacement = host.subgraph.replaced_primitives.get(node_id, replaced)
    return None if replacement is None else host.find_slot(str(replacement))


def _set_value(host: LiveNode, index: int | None, value: Any) -> None:
    if index is not None and index in host.values and value is not None:
        host.values[index] = value


def _add_promoted(host: LiveNode, node: LiveNode, entry: _Entry) -> None:
    """Add an input to the subgraph that feeds the widget of an entry, in place of its present link."""
    assert host.subgraph
    slot = _find_nested(node, entry) if node.subgraph else _find_widget_slot(node, entry.name)
    # A name with $$ is a preview, which has no value: see isPreviewPseudoWidget of the front end.
    if slot is None or entry.name.startswith("$$"):
        return
    index = _add_input(host.subgraph, entry.name, node.slots[slot].type)
    _link_input(host.subgraph, index, node, slot)
    fill_host(host, again=True)
    _set_value(host, index, entry.value)


def _find_widget_slot(node: LiveNode, name: str) -> int | None:
    return None if node.find_widget(name) is None else node.find_slot(name)


def _find_nested(node: LiveNode, entry: _Entry) -> int | None:
    """Return the index of the input of a nested host that an entry means, or None.

    An input is found by the widget to which it leads, or by its own name.
    """
    assert node.subgraph
    for index, slot in enumerate(node.slots):
        inner = _find_inner(node.subgraph, index)
        is_match = inner is not None and inner[1] == entry.name
        if is_match and entry.deeper in (None, inner[0].id if inner else None):
            is_meant = True
        else:
            is_meant = entry.deeper is None and slot.name == entry.name
        if is_meant:
            if index in node.values:
                return index
            break
    named = node.find_slot(entry.name)
    return named if named in node.values else None


def _add_input(graph: LiveGraph, name: str, kind: str) -> int:
    """Add an input with a unique name to a subgraph, and return its index."""
    used_names = {one.name for one in graph.inputs}
    number, unique = 1, name
    while unique in used_names:
        unique, number = f"{name}_{number}", number + 1
    graph.inputs.append(Boundary(unique, kind))
    return len(graph.inputs) - 1


def _link_input(graph: LiveGraph, index: int, node: LiveNode, slot: int) -> None:
    old_link = node.slots[slot].link
    for boundary in graph.inputs:
        boundary.links = [link for link in boundary.links if link != old_link]
    graph.inputs[index].links.append(graph.add_link(INPUTS, index, node, slot))


def _replace_primitive(host: LiveNode, primitive: LiveNode, entries: list[_Entry]) -> None:
    """Replace a PrimitiveNode in the subgraph by an input of the subgraph that feeds all of its targets.

    As in the front end, the PrimitiveNode stays if the entries name more than one of its widgets (its control as well),
    or if a target has another type.
    """
    graph = host.subgraph
    assert graph
    links = [link.id for link in graph.links.values() if link.origin == primitive.id]
    targets = [target for target in map(graph.find_target, links) if target]
    kind = (primitive.output_types or ["*"])[0]
    types = {node.slots[slot].type for node, slot in targets} - {"*", kind}
    if not targets or (types and kind != "*") or len({entry.name for entry in entries}) > 1:
        return
    index = _add_input(graph, primitive.title if primitive.title != PRIMITIVE else entries[0].name, kind)
    graph.replaced_primitives[primitive.id] = graph.inputs[index].name
    for node, slot in targets:
        _link_input(graph, index, node, slot)
    fill_host(host, again=True)
    _set_value(host, index, next((entry.value for entry in entries if entry.value is not None), None))


def settle_nulls(host: LiveNode) -> None:
    """Replace null as the value of a promoted combo by its first choice, as the GUI does after loading.

    The null of any other widget stays null.
    """
    assert host.subgraph
    for index in (index for index, value in host.values.items() if value is None):
        widget = _find_widget(host.subgraph, index)
        choices = read_choices(widget.declaration) if widget and widget.kind in COMBOS and widget.declaration else []
        host.values[index] = next(iter(choices), None)


def _find_widget(graph: LiveGraph, index: int) -> Widget | None:
    """Return the widget, in the subgraph or in one nested in it, to which an input of a subgraph leads, or None."""
    inner = _find_inner(graph, index)
    if inner is None:
        return None
    node, name = inner
    slot = node.find_slot(name)
    if node.subgraph is None or slot is None:
        return node.find_widget(name)
    return _find_widget(node.subgraph, slot)
