"""Export the graph of a config to ComfyUI: as a prompt, and as a workflow of its GUI."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.base.project import CONF_FOLDERS
from pipeline.errors import PipelineError
from pipeline.graph.api_format import write_api_format
from pipeline.graph.bypass import resolve_bypass
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Graph
from pipeline.graph.order import cull
from pipeline.graph.reader import ID
from pipeline.workflow.graph_file import list_ids, restore_ids
from pipeline.workflow.load import list_class_types
from pipeline.workflow.patch import patch_workflow
from pipeline.workflow.to_ui import write_ui_format
from pipeline.workflow.ui_format import is_ui_format

if TYPE_CHECKING:
    from pipeline.engine.session import Session

log = logging.getLogger(__name__)

Values = Mapping[str, Any]
"""A whole config with interpolations resolved."""


def export_prompt(checked: CheckedGraph, values: Values) -> dict[str, dict[str, Any]]:
    """Return the prompt in API format; imported nodes have their original ids."""
    return restore_ids(write_api_format(resolve_bypass(select_nodes(checked, values), checked.signatures)), values)


def export_workflow(
    checked: CheckedGraph, values: Values, session: Session, original: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the workflow from which the GUI makes the prompt of `export_prompt`.

    If possible, it is `original`, the imported workflow, with the values of the graph, so that layout, notes, groups
    and subgraphs stay. Otherwise its layout is automatic. `session` knows the definitions of the classes.
    """
    graph = select_nodes(checked, values)
    ids = list_ids(values, graph)
    if original is not None:
        bypassed = {ids[name]: node.bypassed for name, node in graph.items()}
        try:
            definitions = session.read_definitions(list_class_types(original))
            patched = patch_workflow(original, export_prompt(checked, values), definitions, bypassed)
        except PipelineError as error:
            log.warning("the imported workflow cannot be read any more, so its layout is lost: %s", error)
            patched = None
        if patched is not None:
            return patched
    definitions = session.read_definitions({node.class_type for node in graph.values()})
    return write_ui_format(graph, definitions, ids)


def select_nodes(checked: CheckedGraph, values: Values) -> Graph:
    """Return the nodes that run, bypassed nodes, and the unneeded nodes that came with a workflow."""
    imported = [name for name in checked.declared if values.get(name, {}).get(ID)]
    return cull(checked.declared, [*checked.targets, *imported])


def find_original(hydra: Any) -> dict[str, Any] | None:
    """Return the GUI workflow from which the chosen graph of conf/graph/ was imported, or None.

    `hydra` is the config's hydra node, or None if it is not known.
    """
    name = hydra.runtime.choices.get("graph") if hydra is not None else None
    path = next((path for conf in CONF_FOLDERS if (path := conf / "graph" / f"{name}.json").is_file()), None)
    if not name or path is None:
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read, so the layout of the workflow is lost: %s", path, error)
        return None
    return document if is_ui_format(document) else None
