"""Convert a workflow in the GUI's format to a prompt in ComfyUI's API format, as the GUI exports it."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pipeline.errors import ConfigError, Problem, did_you_mean
from pipeline.graph.api_format import is_link
from pipeline.graph.reader import VALUE
from pipeline.workflow.definitions import NodeDefinition, read_options
from pipeline.workflow.live import ABSENT, BYPASSED, SILENT, LiveNode, Widget
from pipeline.workflow.load import load_workflow
from pipeline.workflow.primitives import set_primitives
from pipeline.workflow.resolve import Held, Origin, Scope, find_source
from pipeline.workflow.text import SAVERS, Choose, fill_placeholders, pick_choices
from pipeline.workflow.widgets import CUSTOM_COMBO

VIEWER_TYPES = ("LOAD_3D", "LOAD_3D_ANIMATION")
"""The types of inputs whose values only the 3D viewer of the running GUI can make."""

PACK_HINT = ". Name the pack that has it: comfyui.custom_nodes=[FOLDER]"

Prompt = dict[str, dict[str, Any]]


class WorkflowExport:
    """A loaded workflow in the GUI's format (0.4 or 1), of which `make_prompt` returns what the GUI exports.

    definitions: those of its class_types.
    choose: picks one of the choices in a dynamic prompt. It is called only once for each, so that all prompts agree.
    now: the time for dates in names of files, by default the present time.
    bypassed: the ids of the bypassed nodes that a prompt can contain, see `make_prompt`.
    warnings: messages that a user should see.

    Raises ConfigError with everything that prevents the export: group nodes, unknown classes, values that only a 3D
    viewer makes.

    Example:
        export = WorkflowExport(document, definitions)
        export.make_prompt()  # {"3": {"class_type": "KSampler", "inputs": {...}, "_meta": {...}}, ...}
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        definitions: Mapping[str, NodeDefinition],
        choose: Choose = random.choice,
        now: datetime | None = None,
    ):
        self._workflow = load_workflow(document, definitions)
        self._choose, self._now = choose, now or datetime.now()
        set_primitives(self._workflow, self._now)
        self._occurrences = list(_list_occurrences(Scope(self._workflow.root)))
        self._picked_texts: dict[tuple[str, str], str] = {}
        active = [node for _, node in self._occurrences if node.mode not in SILENT]
        _refuse_unknown(active, definitions)
        self.warnings = self._workflow.warnings
        self.bypassed = frozenset(
            scope.make_id(node) for scope, node in self._occurrences if node.mode == BYPASSED and node.definition
        )

    def make_prompt(self, kept: Collection[str] = ()) -> Prompt:
        """Return the prompt. It contains the bypassed nodes whose ids are in `kept`, and links to them."""
        prompt = {
            scope.make_id(node): self._export(scope, node, kept)
            for scope, node in self._occurrences
            if node.mode not in SILENT or scope.make_id(node) in kept
        }
        for info in prompt.values():
            info["inputs"] = {
                name: value for name, value in info["inputs"].items() if not is_link(value) or value[0] in prompt
            }
        return prompt

    def _export(self, scope: Scope, node: LiveNode, kept: Collection[str]) -> dict[str, Any]:
        """Return one node of the prompt: the values of its widgets, then the sources of its inputs."""
        inputs: dict[str, Any] = {}
        for widget in node.widgets:
            value = self._read_widget(scope, node, widget) if widget.prompted else ABSENT
            if value is not ABSENT:
                inputs[widget.name] = _wrap(value, widget.kind)
        for index, slot in enumerate(node.slots):
            source = find_source(scope, node, index, kept)
            if isinstance(source, Origin):
                inputs[slot.name] = [source.node, source.slot]
            elif isinstance(source, Held) and source.value is not ABSENT:
                inputs[slot.name] = _wrap(source.value, "")
        if node.type == CUSTOM_COMBO:
            inputs["index"] = _find_choice(node)
        return {"class_type": node.type, "inputs": inputs, "_meta": {"title": node.title}}

    def _read_widget(self, scope: Scope, node: LiveNode, widget: Widget) -> Any:
        value = widget.value
        if not isinstance(value, str):
            return value
        if _is_dynamic_prompt(node, widget):
            key = (scope.make_id(node), widget.name)
            if key not in self._picked_texts:
                self._picked_texts[key] = pick_choices(value, self._choose)
            return self._picked_texts[key]
        if widget.name == "filename_prefix" and node.type in SAVERS:
            return fill_placeholders(value, self._workflow.nodes, self._now)
        return value


def _list_occurrences(scope: Scope) -> Iterator[tuple[Scope, LiveNode]]:
    """Yield the nodes that are not only helpers of the GUI, in the order of the file.

    The nodes of a subgraph come once for each of its hosts.
    """
    for node in scope.graph.nodes.values():
        if node.subgraph is None:
            if not node.is_virtual:
                yield scope, node
        elif scope.host is not None or node.mode not in SILENT:
            yield from _list_occurrences(scope.enter(node))


def _refuse_unknown(nodes: Sequence[LiveNode], definitions: Collection[str]) -> None:
    unknown: dict[str, LiveNode] = {node.type: node for node in reversed(nodes) if node.is_unknown}
    problems = [_explain_unknown(node, definitions) for node in reversed(unknown.values())]
    problems += [
        Problem(
            "viewer_value",
            f"node {node.id} ({node.title})",
            f"{node.type} needs a value that only the 3D viewer of ComfyUI's GUI makes. Take the node out of the "
            "workflow, or read the model by a node without a viewer",
        )
        for node in nodes
        if _needs_viewer(node)
    ]
    if problems:
        raise ConfigError(problems)


def _needs_viewer(node: LiveNode) -> bool:
    """Return whether the node has an input without a link that takes a value of the 3D viewer."""
    return node.definition is not None and any(slot.type in VIEWER_TYPES and slot.link is None for slot in node.slots)


def _explain_unknown(node: LiveNode, known: Collection[str]) -> Problem:
    properties = node.saved.get("properties") or {}
    pack = properties.get("cnr_id") or properties.get("aux_id")
    if pack and pack != "comfy-core":
        hint = f". It is of the pack {pack!r}: install that, and name its folder: comfyui.custom_nodes=[FOLDER]"
    else:
        hint = did_you_mean(node.type, known) or PACK_HINT
    return Problem("missing_node_type", f"node {node.id} ({node.title})", f"{node.type!r} is no known node class{hint}")


def _is_dynamic_prompt(node: LiveNode, widget: Widget) -> bool:
    """Return whether the GUI replaces choices in the text of a widget.

    It does not in the texts of a dynamic combo's option: these widgets are added after it looked for dynamic prompts.
    """
    assert node.definition
    declared = dict(node.definition.inputs).get(widget.name)
    return declared is not None and bool(read_options(declared).get("dynamicPrompts"))


def _find_choice(node: LiveNode) -> int:
    """Return the index of the choice among the options of a CustomCombo, -1 if it is none of them.

    The node's own choice counts even if a host holds another value, as in the front end.
    """
    choice, _, *options = (widget.value for widget in node.widgets)
    return options.index(choice) if choice in options else -1


def _wrap(value: Any, kind: str) -> Any:
    """Return a list wrapped in `__value__`, because it could look like a link; return other values unchanged."""
    if not isinstance(value, list):
        return value
    return {VALUE: value, **({"__type__": "CURVE"} if kind == "CURVE" else {})}


def check_api_format(prompt: Mapping[str, Mapping[str, Any]], definitions: Collection[str]) -> None:
    """Raise ConfigError if a prompt has unknown classes or links to missing nodes; the error lists all of them."""
    problems = []
    for name, info in prompt.items():
        if info["class_type"] not in definitions:
            hint = did_you_mean(info["class_type"], definitions) or PACK_HINT
            message = f"{info['class_type']!r} is no known node class{hint}"
            problems.append(Problem("missing_node_type", f"node {name}", message))
        for key, value in (info.get("inputs") or {}).items():
            if is_link(value) and value[0] not in prompt:
                message = f"is linked to node {value[0]!r}, which the prompt does not have"
                problems.append(Problem("bad_linked_input", f"node {name}, input {key}", message))
    if problems:
        raise ConfigError(problems)
