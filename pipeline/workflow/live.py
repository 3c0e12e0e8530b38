"""A workflow as the GUI holds it after loading: nodes with widgets and slots, links, and subgraphs.

A host is a node that is an instance of a subgraph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.workflow.definitions import NodeDefinition

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()
"""Stands for the value of a widget that has none; its input is then absent in the prompt."""

INPUTS, OUTPUTS = "-10", "-20"
"""The ids of the subgraph's own inputs and outputs in the links inside it."""

ACTIVE, MUTED, BYPASSED = 0, 2, 4
SILENT = (MUTED, BYPASSED)

DYNAMIC_COMBO, AUTOGROW = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"
COMBOS = ("COMBO", DYNAMIC_COMBO)

REROUTE, PRIMITIVE = "Reroute", "PrimitiveNode"
VIRTUAL = frozenset({REROUTE, PRIMITIVE, "Note", "MarkdownNote"})
"""Node types that only the GUI knows."""


@dataclass
class Widget:
    """A widget of a node.

    saved: whether it has a place in widgets_values.
    prompted: whether its value is in the prompt.
    """

    name: str
    kind: str
    value: Any = ABSENT
    declaration: Any = None
    saved: bool = True
    prompted: bool = True


@dataclass
class Slot:
    """An input of a node: its name, its type, the id of the link that feeds it, and whether it belongs to a widget."""

    name: str
    type: str
    link: str | None = None
    is_widget: bool = False


@dataclass(frozen=True)
class WorkflowLink:
    """A link from an output slot of the node `origin` to the node `target`. Ids are strings."""

    id: str
    origin: str
    origin_slot: int
    target: str
    type: str = "*"


@dataclass
class Boundary:
    """An input or an output of a subgraph, with the ids of its links inside."""

    name: str
    type: str
    links: list[str] = field(default_factory=list)


@dataclass
class LiveNode:
    """A node of a loaded workflow.

    saved: its entry in the file.
    definition: None for virtual nodes, hosts and unknown classes.
    subgraph: the graph of which a host is an instance; None for other nodes.
    values: the values that inputs of a host hold, by the index of the input.
    """

    id: str
    type: str
    mode: int
    title: str
    saved: Mapping[str, Any]
    definition: NodeDefinition | None = None
    widgets: list[Widget] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    output_types: list[str] = field(default_factory=list)
    subgraph: LiveGraph | None = None
    values: dict[int, Any] = field(default_factory=dict)

    @property
    def is_virtual(self) -> bool:
        """Whether only the GUI knows it, so that the prompt has no such node."""
        return self.type in VIRTUAL or self.subgraph is not None

    @property
    def is_unknown(self) -> bool:
        """Whether its node class is not known."""
        return self.definition is None and not self.is_virtual

    def find_widget(self, name: str) -> Widget | None:
        """Return the widget of that name, or None."""
        return next((widget for widget in self.widgets if widget.name == name), None)

    def find_slot(self, name: str) -> int | None:
        """Return the index of the input of that name, or None."""
        return next((index for index, slot in enumerate(self.slots) if slot.name == name), None)


@dataclass
class LiveGraph:
    """The nodes and links of the workflow itself or of a subgraph, by id."""

    name: str
    nodes: dict[str, LiveNode] = field(default_factory=dict)
    links: dict[str, WorkflowLink] = field(default_factory=dict)
    inputs: list[Boundary] = field(default_factory=list)
    outputs: list[Boundary] = field(default_factory=list)
    replaced_primitives: dict[str, str] = field(default_factory=dict)

    def find_target(self, link_id: str) -> tuple[LiveNode, int] | None:
        """Return the node and the index of the input that a link feeds, or None.

        The `link` of the input decides, not the slot that the link names.
        """
        link = self.links.get(link_id)
        node = self.nodes.get(link.target) if link else None
        if node is None:
            return None
        return next(((node, index) for index, slot in enumerate(node.slots) if slot.link == link_id), None)

    def add_link(self, origin: str, origin_slot: int, node: LiveNode, slot: int) -> str:
        """Link an output to an input, in place of the input's present link, and return the id of the new link."""
        link_id = f"new {len(self.links)}"
        self.links[link_id] = WorkflowLink(link_id, origin, origin_slot, node.id, node.slots[slot].type)
        node.slots[slot].link = link_id
        return link_id
