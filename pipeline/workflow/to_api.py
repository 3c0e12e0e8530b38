"""From a workflow in the GUI's format to a prompt in ComfyUI's API format, as the GUI exports it."""

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
"""Types of inputs whose values only the live 3D viewer of the GUI makes."""

PACK_HINT = ". Name the pack that has it: comfyui.custom_nodes=[FOLDER]"

Prompt = dict[str, dict[str, Any]]


class WorkflowExport:
    """A workflow in the GUI's format (0.4 or 1), loaded; its prompt is what the GUI exports.

    `definitions` are those of its class_types. `choose` picks from the choices of dynamic prompts, once for each.
    `bypassed` are the ids of the bypassed nodes that a prompt can keep, `warnings` what a user should know.
    Raises ConfigError with all that stands in the way: group nodes, unknown classes, values that a 3D viewer makes.
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
        self._places = list(_list_places(Scope(self._workflow.root)))
        self._picked: dict[tuple[str, str], str] = {}
        emitted = [node for _, node in self._places if node.mode not in SILENT]
        _refuse_unknown(emitted, definitions)
        self.warnings = self._workflow.warnings
        self.bypassed = frozenset(
            scope.make_id(node) for scope, node in self._places if node.mode == BYPASSED and node.definition
        )

    def make_prompt(self, kept: Collection[str] = ()) -> Prompt:
        """The prompt, in which the bypassed nodes `kept` stay, and links to them."""
        prompt = {
            scope.make_id(node): self._export(scope, node, kept)
            for scope, node in self._places
            if node.mode not in SILENT or scope.make_id(node) in kept
        }
        for info in prompt.values():
            info["inputs"] = {
                name: value for name, value in info["inputs"].items() if not is_link(value) or value[0] in prompt
            }
        return prompt

    def _export(self, scope: Scope, node: LiveNode, kept: Collection[str]) -> dict[str, Any]:
        """One node of the prompt: the values of its widgets, then what its inputs are connected to."""
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
            place = (scope.make_id(node), widget.name)
            if place not in self._picked:
                self._picked[place] = pick_choices(value, self._choose)
            return self._picked[place]
        if widget.name == "filename_prefix" and node.type in SAVERS:
            return fill_placeholders(value, self._workflow.nodes, self._now)
        return value


def _list_places(scope: Scope) -> Iterator[tuple[Scope, LiveNode]]:
    """The nodes that are no GUI helpers, in the order of the file, those of a subgraph once for each of its hosts."""
    for node in scope.graph.nodes.values():
        if node.subgraph is None:
            if not node.is_virtual:
                yield scope, node
        elif scope.host is not None or node.mode not in SILENT:
            yield from _list_places(scope.enter(node))


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
    """Whether an input that is not linked takes what a viewer shows."""
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
    """Whether choices are made in a text. Not in those of a dynamic combo's option, which come after the GUI looked."""
    assert node.definition
    declared = dict(node.definition.inputs).get(widget.name)
    return declared is not None and bool(read_options(declared).get("dynamicPrompts"))


def _find_choice(node: LiveNode) -> int:
    """The place of the choice among the options of a CustomCombo, -1 if it is none of them.

    It is the node's own choice that counts, also where a host holds another: so does the front end.
    """
    choice, _, *options = (widget.value for widget in node.widgets)
    return options.index(choice) if choice in options else -1


def _wrap(value: Any, kind: str) -> Any:
    """A list is wrapped, or it would pass for a link."""
    if not isinstance(value, list):
        return value
    return {VALUE: value, **({"__type__": "CURVE"} if kind == "CURVE" else {})}


def check_api_format(prompt: Mapping[str, Mapping[str, Any]], definitions: Collection[str]) -> None:
    """Raise ConfigError, with all of them, for unknown classes in a prompt and for links that lead nowhere."""
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
