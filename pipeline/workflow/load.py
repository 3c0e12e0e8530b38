"""Load a workflow as the GUI does: fill the widgets, and set up subgraphs and promoted widgets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ConfigError, Problem
from pipeline.workflow.definitions import NodeDefinition, read_options
from pipeline.workflow.live import DYNAMIC_COMBO, INPUTS, VIRTUAL, LiveGraph, LiveNode, Slot
from pipeline.workflow.promotion import fill_host, migrate_promoted, settle_nulls
from pipeline.workflow.ui_format import (
    list_graphs,
    list_subgraphs,
    make_ids_unique,
    read_boundaries,
    read_links,
    read_slot_type,
    refuse_group_nodes,
)
from pipeline.workflow.widgets import fill_widgets, give_widgets


@dataclass
class Workflow:
    """A loaded workflow: its own graph and the graphs of its subgraphs, each after those that it contains.

    `warnings` are messages that a user should see.
    """

    root: LiveGraph
    subgraphs: dict[str, LiveGraph]
    warnings: list[str] = field(default_factory=list)

    @property
    def graphs(self) -> list[LiveGraph]:
        """The workflow's own graph, then its subgraphs."""
        return [self.root, *self.subgraphs.values()]

    @property
    def nodes(self) -> list[LiveNode]:
        """All nodes; those of a subgraph occur once, however many hosts it has."""
        return [node for graph in self.graphs for node in graph.nodes.values()]


def list_class_types(workflow: Mapping[str, Any]) -> set[str]:
    """Return the class_types whose definitions `load_workflow` needs."""
    subgraphs = {str(one.get("id")) for one in list_subgraphs(workflow)}
    types = {str(node.get("type")) for graph in list_graphs(workflow) for node in graph.get("nodes", ())}
    return types - subgraphs - VIRTUAL


def load_workflow(document: Mapping[str, Any], definitions: Mapping[str, NodeDefinition]) -> Workflow:
    """Load a workflow in the GUI's format, version 0.4 or 1, as the GUI does. `document` is not changed.

    Raises ConfigError for group nodes and for subgraphs that contain themselves.

    Example:
        workflow = load_workflow(document, definitions)  # definitions of the classes in list_class_types(document)
        workflow.root.nodes["3"].widgets
    """
    refuse_group_nodes(document)
    document = make_ids_unique(document)
    entries = {str(one["id"]): one for one in list_subgraphs(document)}
    loader = _Loader(definitions, Workflow(LiveGraph("workflow"), {}))
    for name in _sort_leaf_first(entries):
        loader.workflow.subgraphs[name] = LiveGraph(str(entries[name].get("name") or name))
        loader.load(loader.workflow.subgraphs[name], entries[name])
    loader.load(loader.workflow.root, document)
    for graph in (*loader.workflow.subgraphs.values(), loader.workflow.root):
        for host in (node for node in graph.nodes.values() if node.subgraph):
            fill_host(host, again=True)  # another host of the same subgraph may have added an input to it
            settle_nulls(host)
    return loader.workflow


def _sort_leaf_first(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names: list[str] = []

    def visit(name: str, ancestors: Collection[str]) -> None:
        if name in ancestors:
            message = "contains itself. Open the workflow in ComfyUI's GUI and take the subgraph out of itself"
            raise ConfigError([Problem("dependency_cycle", f"subgraph {entries[name].get('name', name)}", message)])
        if name not in names:
            for node in entries[name].get("nodes", ()):
                if str(node.get("type")) in entries:
                    visit(str(node["type"]), {*ancestors, name})
            names.append(name)

    for name in entries:
        visit(name, set())
    return names


@dataclass
class _Loader:
    definitions: Mapping[str, NodeDefinition]
    workflow: Workflow

    def load(self, graph: LiveGraph, entry: Mapping[str, Any]) -> None:
        """Fill `graph` from its entry in the file. The subgraphs that it uses must be filled already."""
        graph.links = read_links(entry)
        graph.inputs, graph.outputs = read_boundaries(entry.get("inputs")), read_boundaries(entry.get("outputs"))
        for saved in entry.get("nodes", ()):
            node = self._make_node(saved)
            graph.nodes[node.id] = node
        self._drop_dangling(graph)
        for node in graph.nodes.values():
            node.output_types = _read_output_types(graph, node)
        hosts = [node for node in graph.nodes.values() if node.subgraph]
        for host in hosts:
            fill_host(host)
        for host in hosts:
            migrate_promoted(host)

    def _make_node(self, saved: Mapping[str, Any]) -> LiveNode:
        kind = str(saved.get("type"))
        definition, subgraph = self.definitions.get(kind), self.workflow.subgraphs.get(kind)
        default_title = definition.title if definition else subgraph.name if subgraph else kind
        title = saved.get("title") or default_title
        node = LiveNode(str(saved["id"]), kind, int(saved.get("mode") or 0), str(title), saved, subgraph=subgraph)
        if subgraph:
            node.slots = [Slot(one.name, one.type) for one in subgraph.inputs]
        elif kind not in VIRTUAL and definition:
            node.definition = definition
            give_widgets(node)
            if fill_widgets(node, saved.get("widgets_values")):
                message = (
                    f"node {node.id} ({node.title}): its file has no value for control_after_generate; made up for"
                )
                self.workflow.warnings.append(message)
        self._connect(node)
        return node

    def _connect(self, node: LiveNode) -> None:
        """Set the links of the inputs from the file by input name; inputs that the class does not declare come last."""
        by_name = {slot.name: slot for slot in reversed(node.slots)}
        for saved in node.saved.get("inputs") or ():
            name, link = str(saved.get("name")), saved.get("link")
            slot = by_name.get(name)
            if slot is None:
                owner = (saved.get("widget") or {}).get("name")
                stray = node.definition and ((owner and not node.find_widget(owner)) or _belongs_to_combo(node, name))
                if node.subgraph or stray:
                    continue
                slot = Slot(name, read_slot_type(saved.get("type")), is_widget=bool(owner))
                node.slots.append(slot)
            slot.link = None if link is None else str(link)

    def _drop_dangling(self, graph: LiveGraph) -> None:
        """Remove links without an origin and warn about them; the GUI cannot export a workflow that has one."""
        for node in graph.nodes.values():
            for slot in node.slots:
                if slot.link is None:
                    continue
                link = graph.links.get(slot.link)
                if link is None or not _has_origin(graph, link.origin, link.origin_slot):
                    message = f"node {node.id} ({node.title}), input {slot.name}: link {slot.link} leads nowhere"
                    self.workflow.warnings.append(f"{message}; treated as not connected")
                    slot.link = None


def _read_output_types(graph: LiveGraph, node: LiveNode) -> list[str]:
    saved = [read_slot_type(one.get("type")) for one in node.saved.get("outputs") or ()]
    if node.subgraph:
        return [one.type for one in node.subgraph.outputs]
    if not node.definition:
        return saved
    declared = [output.slot_type for output in node.definition.outputs]
    for index, template in enumerate(node.definition.match_types[: len(declared)]):
        if template is not None:
            declared[index] = _match_type(graph, node, template)
    return declared + saved[len(declared) :]


def _match_type(graph: LiveGraph, node: LiveNode, template: str) -> str:
    """Return the type of the first link, other than a wildcard, into the inputs of a match type template, else `*`."""
    assert node.definition
    group = {
        name
        for name, declaration in node.definition.inputs
        if (read_options(declaration).get("template") or {}).get("template_id") == template
    }
    types = [graph.links[slot.link].type for slot in node.slots if slot.name in group and slot.link]
    return next((kind for kind in types if kind != "*"), "*")


def _belongs_to_combo(node: LiveNode, name: str) -> bool:
    """Return whether an input that a node does not have belongs to another option of one of its dynamic combos."""
    return any(widget.kind == DYNAMIC_COMBO and name.startswith(f"{widget.name}.") for widget in node.widgets)


def _has_origin(graph: LiveGraph, origin: str, slot: int) -> bool:
    if origin == INPUTS:
        return 0 <= slot < len(graph.inputs)
    return origin in graph.nodes
