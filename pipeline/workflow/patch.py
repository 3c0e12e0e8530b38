"""Change the values in an imported workflow: its layout, notes, groups and subgraphs stay as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.graph.api_format import is_link
from pipeline.graph.reader import VALUE
from pipeline.workflow.definitions import NodeDefinition
from pipeline.workflow.live import ABSENT, ACTIVE, BYPASSED, PRIMITIVE, LiveGraph, LiveNode
from pipeline.workflow.load import Workflow, load_workflow
from pipeline.workflow.promotion import ITSELF
from pipeline.workflow.to_api import WorkflowExport
from pipeline.workflow.to_ui import fit_value
from pipeline.workflow.ui_format import list_subgraphs, make_ids_unique
from pipeline.workflow.widgets import set_value

Prompt = Mapping[str, Mapping[str, Any]]


def patch_workflow(
    document: Mapping[str, Any],
    prompt: Prompt,
    definitions: Mapping[str, NodeDefinition],
    bypassed: Mapping[str, bool],
) -> dict[str, Any] | None:
    """Return a workflow in the GUI's format, with values changed so that the GUI exports `prompt`.

    document: the workflow; it is not changed.
    prompt: in the API format, with the ids of the workflow's nodes.
    bypassed: for nodes of the workflow, by id, whether they are bypassed.

    Return None if it is not enough to change values and to bypass nodes: if links or nodes differ, or if a value
    differs that several nodes share in the workflow.
    """
    patched = make_ids_unique(document)
    for entry in patched.get("nodes", ()):
        if (mode := bypassed.get(str(entry["id"]))) is not None:
            entry["mode"] = BYPASSED if mode else ACTIVE
    patcher = _Patcher(patched, load_workflow(patched, definitions))
    old_nodes = _export(patched, definitions)
    for node_id, info in prompt.items():
        old_inputs = old_nodes.get(node_id, ("", {}))[1]
        for name, value in info["inputs"].items():
            if not is_link(value) and old_inputs.get(name, ABSENT) != value:
                patcher.set(node_id.split(":"), name, value[VALUE] if isinstance(value, dict) else value)
    expected = {node_id: (info["class_type"], info["inputs"]) for node_id, info in prompt.items()}
    return patched if _export(patched, definitions) == expected else None


def _export(document: Mapping[str, Any], definitions: Mapping[str, NodeDefinition]) -> dict[str, tuple[str, Any]]:
    """Return class_type and inputs of the nodes that the GUI exports, by id.

    Of the choices in a dynamic prompt the first is taken, so that two calls can be compared.
    """
    prompt = WorkflowExport(document, definitions, choose=lambda choices: choices[0]).make_prompt()
    return {node_id: (info["class_type"], info["inputs"]) for node_id, info in prompt.items()}


class _Patcher:
    def __init__(self, document: dict[str, Any], workflow: Workflow):
        self._document, self._workflow = document, workflow
        self._subgraphs = {str(entry["id"]): entry for entry in list_subgraphs(document)}

    def set(self, path: Sequence[str], name: str, value: Any) -> None:
        """Set an input value of the node at `path` (ids of hosts, then its own), wherever the workflow stores it."""
        self._set(self._document, self._workflow.root, path, name, value)

    def _set(self, entry: Mapping[str, Any], graph: LiveGraph, path: Sequence[str], name: str, value: Any) -> None:
        node = graph.nodes.get(path[0])
        if node is None:
            return
        saved = _find_entry(entry, path[0])
        if len(path) == 1:
            self._set_widget(entry, graph, node, saved, name, value)
        elif node.subgraph is not None:
            _set_promoted(node, saved, path[1:], name, value)
            self._set(self._subgraphs[node.type], node.subgraph, path[1:], name, value)

    def _set_widget(
        self,
        entry: Mapping[str, Any],
        graph: LiveGraph,
        node: LiveNode,
        saved: dict[str, Any],
        name: str,
        value: Any,
    ) -> None:
        widget, slot = node.find_widget(name), node.find_slot(name)
        if widget is None:
            return
        set_value(node, widget, fit_value(widget, value))
        values = [one.value for one in node.widgets if one.saved]
        saved["widgets_values"] = [None if one is ABSENT else one for one in values]
        link = graph.links.get(node.slots[slot].link or "") if slot is not None else None
        if link and link.origin in graph.nodes and graph.nodes[link.origin].type == PRIMITIVE:
            origin = _find_entry(entry, link.origin)
            origin["widgets_values"] = [value, *(origin.get("widgets_values") or [])[1:]]


def _find_entry(entry: Mapping[str, Any], node_id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(node for node in entry["nodes"] if str(node["id"]) == node_id)
    return found


def _set_promoted(host: LiveNode, saved: dict[str, Any], path: Sequence[str], name: str, value: Any) -> None:
    """Set the value that a host holds for a widget inside it, if it holds one."""
    assert host.subgraph
    indices = [index for index in sorted(host.values) if _leads_to(host.subgraph, index, path[0], name)]
    for index in indices:
        host.values[index] = value
    entries = (saved.get("properties") or {}).get("proxyWidgets")
    if indices and entries:
        saved["widgets_values"] = [_find_promoted(host, str(one[0]), str(one[1])) for one in entries]
    elif indices:
        saved["widgets_values"] = [host.values[index] for index in sorted(host.values)]


def _find_promoted(host: LiveNode, node_id: str, name: str) -> Any:
    """Return the value that a host holds for an entry of its `proxyWidgets`, or None if it holds none."""
    assert host.subgraph
    inputs = enumerate(host.subgraph.inputs)
    values = (
        host.values[index]
        for index, boundary in inputs
        if index in host.values
        and (_leads_to(host.subgraph, index, node_id, name) or (node_id, name) == (ITSELF, boundary.name))
    )
    return next(values, None)


def _leads_to(graph: LiveGraph, index: int, node_id: str, name: str) -> bool:
    """Return whether the input `index` of a subgraph feeds the input `name` of a node inside."""
    targets = filter(None, map(graph.find_target, graph.inputs[index].links))
    return any(node.id == node_id and node.slots[slot].name == name for node, slot in targets)
