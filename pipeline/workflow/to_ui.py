"""Convert a graph to a workflow in the GUI's own format, version 0.4, which the GUI exports as the same prompt.

The names of the nodes become their titles, and also their ids if they have no others, so that the prompt that the GUI
exports has the same ids as that of the graph. The layout is automatic. Bypassed nodes are included, in the GUI's bypass
mode. The GUI holds numbers as JavaScript does, so it rounds a seed beyond 2^53.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.signature import OutputSpec
from pipeline.workflow.definitions import NodeDefinition, read_options
from pipeline.workflow.layout import Box, Wire, place_boxes
from pipeline.workflow.live import ABSENT, ACTIVE, BYPASSED, LiveNode, Slot, Widget
from pipeline.workflow.text import pick_choices
from pipeline.workflow.widgets import CONTROL, give_widgets, set_value

VERSION = 0.4
GAP = (80.0, 50.0)

# The sizes of the parts of a node in the GUI, in its pixels. The GUI enlarges a node that is too small.
TITLE, ROW, WIDGET, TEXT_AREA, PICTURE, MARGIN = 30, 20, 24, 120, 220, 16
WIDTH, WIDE = 300, 400
SHOWS_PICTURE = frozenset({"SaveImage", "PreviewImage", "LoadImage", "LoadImageMask"})

PRIMITIVES: Mapping[type, tuple[str, str]] = {
    bool: ("PrimitiveBoolean", "BOOLEAN"),
    int: ("PrimitiveInt", "INT"),
    float: ("PrimitiveFloat", "FLOAT"),
    str: ("PrimitiveStringMultiline", "STRING"),
}
"""The node that supplies a value which its reader cannot store: class_type and output type, by the value's type."""


def write_ui_format(
    graph: Graph, definitions: Mapping[str, NodeDefinition], ids: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a graph with links by index as a workflow, bypassed nodes included.

    definitions: those of its class_types.
    ids: by node name, the ids of nodes whose ids are not their names.

    The GUI cannot store some values in their node: a number or text of an input without a widget, and a text that it
    would take for a dynamic prompt. Such a value comes from an additional Primitive node. A list or mapping of an input
    without a widget is left out, because no node of the GUI can store it. A widget whose input is not given has the
    GUI's default.

    Example:
        Path("workflow.json").write_text(json.dumps(write_ui_format(checked.shown, definitions)))
    """
    live = {name: _make_live(node, definitions[node.class_type]) for name, node in graph.items()}
    graph = _move_values(graph, live)
    for name in (name for name in graph if name not in live):
        live[name] = _make_live(graph[name], _define_primitive(graph[name].class_type))
    writer = _Writer(graph, live, _list_links(graph, live), ids or {})
    nodes = writer.write_nodes()
    links = [[number, *writer.write_link(link)] for number, link in enumerate(writer.links, start=1)]
    content = json.dumps([nodes, links], default=str)
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, content)),
        "revision": 0,
        "last_node_id": max((one["id"] for one in nodes if isinstance(one["id"], int)), default=0),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": VERSION,
    }


def _make_live(node: Node, definition: NodeDefinition) -> LiveNode:
    """Return the node as the GUI holds it."""
    saved = {"inputs": [{"name": name} for name in node.inputs]}
    mode = BYPASSED if node.bypassed else ACTIVE
    live = LiveNode(node.name, node.class_type, mode, node.name, saved, definition)
    give_widgets(live)
    index = 0
    while index < len(live.widgets):  # the list grows while dynamic combos are set
        widget = live.widgets[index]
        value = node.inputs.get(widget.name, ABSENT)
        if value is not ABSENT and not isinstance(value, Link) and widget.kind != CONTROL:
            set_value(live, widget, value)
        index += 1
    known_names = {slot.name for slot in live.slots} | {widget.name for widget in live.widgets}
    live.slots += [Slot(name, "*") for name in node.inputs if name not in known_names]
    return live


def _move_values(graph: Graph, live: Mapping[str, LiveNode]) -> Graph:
    """Return the graph with a new Primitive node for each value that its own node cannot store.

    A text that can be stored in an escaped form is escaped instead, in its widget in `live`.
    """
    nodes: dict[str, Node] = {}
    for name, node in graph.items():
        inputs = dict(node.inputs)
        for key, value in node.inputs.items():
            if isinstance(value, Link):
                continue
            widget = live[name].find_widget(key)
            if widget is not None and (stored := fit_value(widget, value)) is not ABSENT:
                widget.value = stored
            elif type(value) in PRIMITIVES:
                primitive = f"{name}.{key}"  # no node of a config has such a name
                nodes[primitive] = Node(primitive, PRIMITIVES[type(value)][0], {"value": value})
                inputs[key] = Link(primitive, 0)
        nodes[name] = Node(name, node.class_type, inputs, node.bypassed)
    return Graph(nodes)


def fit_value(widget: Widget, value: Any) -> Any:
    """Return the value to store in a widget so that the GUI exports `value`, or ABSENT if there is none."""
    if not isinstance(value, str) or not read_options(widget.declaration or ("",)).get("dynamicPrompts"):
        return value
    escaped = value.replace("{", r"\{").replace("}", r"\}").replace("|", r"\|")
    return next((text for text in (value, escaped) if _read_dynamic(text) == value), ABSENT)


def _read_dynamic(text: str) -> str | None:
    """Return the text that the GUI exports for a text with dynamic prompts, or None if that depends on chance."""
    choices_seen: list[Sequence[str]] = []

    def choose(choices: Sequence[str]) -> str:
        choices_seen.append(choices)
        return ""

    exported = pick_choices(text, choose)
    return None if choices_seen or text.endswith("\\") else exported  # after a last backslash the GUI adds a word


def _define_primitive(class_type: str) -> NodeDefinition:
    kind = next(kind for one, kind in PRIMITIVES.values() if one == class_type)
    options = {"control_after_generate": "fixed"} if kind == "INT" else {"multiline": True} if kind == "STRING" else {}
    return NodeDefinition(class_type, (("value", (kind, options)),), (OutputSpec(kind, kind),))


@dataclass(frozen=True)
class _UILink:
    """A link between slots; `source` and `target` are node names, `output` and `slot` indices."""

    source: str
    output: int
    target: str
    slot: int


def _list_links(graph: Graph, live: Mapping[str, LiveNode]) -> list[_UILink]:
    links = []
    for name, node in graph.items():
        for index, slot in enumerate(live[name].slots):
            value = node.inputs.get(slot.name)
            if isinstance(value, Link):
                assert isinstance(value.output, int)  # resolved by the check
                links.append(_UILink(value.node, value.output, name, index))
    return links


@dataclass(frozen=True)
class _Writer:
    graph: Graph
    live: Mapping[str, LiveNode]
    links: list[_UILink]
    ids: Mapping[str, str]

    def write_nodes(self) -> list[dict[str, Any]]:
        boxes = {name: _measure(live) for name, live in self.live.items()}
        wires = [
            Wire(link.source, link.target, _find_output(link.output), _find_input(self.live[link.target], link.slot))
            for link in self.links
        ]
        corners = place_boxes({name: boxes[name] for name in self.graph}, wires, GAP).corners
        return [self._write_node(name, order, boxes[name], corners[name]) for order, name in enumerate(self.graph)]

    def write_link(self, link: _UILink) -> list[Any]:
        """Return a link in the form of version 0.4, without its number."""
        kind = self._outputs(link.source)[link.output].slot_type
        return [self._write_id(link.source), link.output, self._write_id(link.target), link.slot, kind]

    def _write_id(self, name: str) -> str | int:
        """Return a node's id in the form of the GUI, in which an id that looks like a whole number is one."""
        node_id = self.ids.get(name, name)
        return int(node_id) if node_id.isascii() and node_id.isdigit() and str(int(node_id)) == node_id else node_id

    def _outputs(self, name: str) -> Sequence[OutputSpec]:
        definition = self.live[name].definition
        assert definition
        return definition.outputs

    def _write_node(self, name: str, order: int, box: Box, corner: tuple[float, float]) -> dict[str, Any]:
        live = self.live[name]
        incoming = {link.slot: number for number, link in enumerate(self.links, 1) if link.target == name}
        outgoing: dict[int, list[int]] = {}
        for number, link in enumerate(self.links, 1):
            if link.source == name:
                outgoing.setdefault(link.output, []).append(number)
        return {
            "id": self._write_id(name),
            "type": live.type,
            "pos": [round(corner[0]), round(corner[1]) + TITLE],
            "size": [round(box.width), round(box.height) - TITLE],
            "flags": {},
            "order": order,
            "mode": live.mode,
            "title": live.title,
            "inputs": [_write_slot(slot, incoming.get(index)) for index, slot in enumerate(live.slots)],
            "outputs": [
                {"name": output.name, "type": output.slot_type, "links": outgoing.get(index)}
                for index, output in enumerate(self._outputs(name))
            ],
            "properties": {"Node name for S&R": live.type},
            "widgets_values": [_write_widget(widget) for widget in live.widgets if widget.saved],
        }


def _write_slot(slot: Slot, link: int | None) -> dict[str, Any]:
    owner = {"widget": {"name": slot.name}} if slot.is_widget else {}
    return {"name": slot.name, "type": slot.type, **owner, "link": link}


def _write_widget(widget: Widget) -> Any:
    """Return the value to store for a widget. Controls are "fixed", so that a run in the GUI does not change a seed."""
    return "fixed" if widget.kind == CONTROL else None if widget.value is ABSENT else widget.value


def _measure(live: LiveNode) -> Box:
    assert live.definition
    sockets = sum(not slot.is_widget for slot in live.slots)
    height = TITLE + ROW * max(sockets, len(live.definition.outputs)) + MARGIN
    height += sum(TEXT_AREA if _is_multiline(widget) else WIDGET for widget in live.widgets)
    height += PICTURE if live.type in SHOWS_PICTURE else 0
    return Box(WIDE if any(map(_is_multiline, live.widgets)) else WIDTH, height)


def _is_multiline(widget: Widget) -> bool:
    return widget.declaration is not None and bool(read_options(widget.declaration).get("multiline"))


def _find_output(index: int) -> float:
    return TITLE + ROW * (index + 0.7)


def _find_input(live: LiveNode, index: int) -> float:
    sockets = [place for place, slot in enumerate(live.slots) if not slot.is_widget]
    row = sockets.index(index) if index in sockets else max(len(sockets), 1)
    return TITLE + ROW * (row + 0.7)
