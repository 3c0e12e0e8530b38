"""Read the GUI's own file format, versions 0.4 and 1, into one form: ids are strings, links are `WorkflowLink`s."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import ConfigError, Problem
from pipeline.workflow.live import Boundary, WorkflowLink


def is_ui_format(document: Any) -> bool:
    """Return whether a JSON document is a workflow in the GUI's own format."""
    return isinstance(document, Mapping) and isinstance(document.get("nodes"), list)


def list_subgraphs(workflow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the definitions of the workflow's subgraphs, in the order of the file."""
    return list((workflow.get("definitions") or {}).get("subgraphs") or [])


def list_graphs(workflow: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the workflow itself and its subgraphs."""
    return [workflow, *list_subgraphs(workflow)]


def refuse_group_nodes(workflow: Mapping[str, Any]) -> None:
    """Raise ConfigError if the workflow has group nodes, which the GUI replaced by subgraphs; it lists all of them."""
    names = {str(node.get("type")) for graph in list_graphs(workflow) for node in graph.get("nodes", ())}
    groups = sorted(name for name in names if name.startswith(("workflow>", "workflow/")))
    if groups:
        message = (
            "is a group node, a kind that ComfyUI has replaced by subgraphs. "
            "Open the workflow in ComfyUI's GUI, which makes a subgraph of it, save it and import that file"
        )
        raise ConfigError(Problem("group_node", name, message) for name in groups)


def read_links(graph: Mapping[str, Any]) -> dict[str, WorkflowLink]:
    """Return the links of a graph by id. They are lists in version 0.4, mappings in version 1 and in subgraphs."""
    found = (_read_link(link) for link in graph.get("links") or () if link)
    return {link.id: link for link in found}


def _read_link(link: Any) -> WorkflowLink:
    if isinstance(link, Mapping):
        kind = link.get("type")
        fields = link["id"], link["origin_id"], link["origin_slot"], link["target_id"], kind
    else:
        fields = link[0], link[1], link[2], link[3], link[5] if len(link) > 5 else None
    link_id, origin, slot, target, kind = fields
    return WorkflowLink(str(link_id), str(origin), int(slot), str(target), read_slot_type(kind))


def read_slot_type(kind: Any) -> str:
    """Return the type of a slot as text: `*` for 0, the wildcard of old files, and COMBO for a list of choices."""
    if isinstance(kind, list):
        return "COMBO"
    return "*" if kind in (None, 0, -1, "") else str(kind)


def read_boundaries(entries: list[Mapping[str, Any]] | None) -> list[Boundary]:
    """Return the inputs or the outputs of a subgraph."""
    return [
        Boundary(str(one["name"]), read_slot_type(one.get("type")), [str(link) for link in one.get("linkIds") or ()])
        for one in entries or ()
    ]


def make_ids_unique(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the workflow in which no node of a subgraph has the id of a node elsewhere.

    The ids of the workflow's own nodes stay. The subgraphs follow in the order of the file, and a node whose id is
    taken gets a new one, as in the front end's deduplicateSubgraphNodeIds.
    """
    copied: dict[str, Any] = copy.deepcopy(dict(workflow))
    used = {str(node["id"]) for node in copied.get("nodes", ()) if isinstance(node.get("id"), int)}
    saved = copied.get("last_node_id", (copied.get("state") or {}).get("lastNodeId"))
    last: int = saved if isinstance(saved, int) else max(map(int, used), default=0)
    renamed: dict[str, dict[str, int]] = {}
    for subgraph in list_subgraphs(copied):
        new_ids: dict[str, int] = {}
        for node in subgraph.get("nodes", ()):
            name = str(node.get("id"))
            if name in used:
                last += 1
                while str(last) in used:
                    last += 1
                new_ids[name] = node["id"] = last
            elif re.fullmatch(r"0|[1-9]\d*", name):
                last = max(last, int(name))
            used.add(str(node["id"]))
        if new_ids:
            renamed[str(subgraph.get("id"))] = new_ids
            _rename_ends(subgraph, new_ids)
    if renamed:
        _rename_promoted(copied, renamed)
    return copied


def _rename_ends(subgraph: dict[str, Any], new_ids: Mapping[str, int]) -> None:
    for link in subgraph.get("links") or ():
        ends: tuple[Any, ...] = ("origin_id", "target_id") if isinstance(link, dict) else (1, 3)
        for end in ends:
            link[end] = new_ids.get(str(link[end]), link[end])


def _rename_promoted(workflow: dict[str, Any], renamed: Mapping[str, Mapping[str, int]]) -> None:
    """Replace the node ids in the `proxyWidgets` of hosts by the new ids."""
    for graph in list_graphs(workflow):
        for node in graph.get("nodes", ()):
            for entry in (node.get("properties") or {}).get("proxyWidgets") or ():
                entry[0] = str(renamed.get(str(node.get("type")), {}).get(str(entry[0]), entry[0]))
