"""Validate prompts in ComfyUI's API format by ComfyUI's own validate_inputs.

ComfyUI's validate_prompt walks through the graph by recursion, for which long chains of nodes are too deep. Here each
node is validated after those that it reads, so that the recursion is never deeper than one link.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.engine.comfyui.call import PROMPT_ID
from pipeline.engine.comfyui.start import ComfyUI
from pipeline.errors import CycleError, PromptError, did_you_mean
from pipeline.graph.api_format import read_api_format
from pipeline.graph.model import Graph
from pipeline.graph.order import cull, sort_nodes


async def check_prompt(
    comfyui: ComfyUI, prompt: dict[str, Any], targets: Iterable[str] | None, failures: str = ""
) -> tuple[list[str], dict[str, Any]]:
    """Return the output nodes that can run, and ComfyUI's node_errors of the others; convert constants in place.

    `targets` are the wanted output nodes, None means all. `failures` is the end of the message about an unknown
    class_type: the packs that could not be imported. Raises PromptError for one, and if no output node can run.
    """
    classes = comfyui.nodes.NODE_CLASS_MAPPINGS
    _check_classes(prompt, classes, comfyui.installation.version, failures)
    wanted = None if targets is None else set(targets)
    outputs = [
        name
        for name, info in prompt.items()
        if getattr(classes[info["class_type"]], "OUTPUT_NODE", False) is True and (wanted is None or name in wanted)
    ]
    if not outputs:
        raise PromptError(_make_error("prompt_no_outputs", "Prompt has no outputs"), {})
    validated: dict[str, tuple[bool, list[Any], str]] = {}
    node_errors: dict[str, Any] = {}
    for name in _sort_for_check(prompt, outputs):
        try:
            await comfyui.execution.validate_inputs(PROMPT_ID, prompt, name, validated)
        except Exception as error:  # noqa: BLE001 (as in ComfyUI's validate_prompt)
            if name in outputs:  # for other nodes, the node that reads them reports the same
                validated[name] = (False, [_explain(error)], name)
    valid_outputs = [name for name in outputs if validated[name][0] is True]
    if len(valid_outputs) < len(outputs):
        node_errors = _collect_errors(prompt, outputs, validated)
    if not valid_outputs:
        details = "\n".join(
            f"{one['message']}: {one['details']}" for node in node_errors.values() for one in node["errors"]
        )
        message = "Prompt outputs failed validation"
        raise PromptError(_make_error("prompt_outputs_failed_validation", message, details), node_errors)
    return valid_outputs, node_errors


def _check_classes(prompt: Mapping[str, Any], classes: Mapping[str, Any], version: str, failures: str) -> None:
    for name, info in prompt.items():
        class_type = info.get("class_type") if isinstance(info, Mapping) else None
        if class_type in classes:
            continue
        title = (info.get("_meta") or {}).get("title") if isinstance(info, Mapping) else None
        shown = title or class_type or f"ID #{name}"
        message = f"Node '{shown}' has no class_type" if class_type is None else f"Node '{shown}' not found"
        near = did_you_mean(class_type, classes) if class_type else ""
        details = (
            f"Node ID '#{name}': {class_type!r} is not a node of ComfyUI {version} nor of a loaded pack{near}{failures}"
        )
        extra = {"node_id": name, "class_type": class_type, "node_title": title}
        raise PromptError(_make_error("missing_node_type", message, details, extra), {})


def _sort_for_check(prompt: Mapping[str, Any], outputs: Sequence[str]) -> Sequence[str]:
    needed = cull(read_api_format(prompt), outputs)
    try:
        return sort_nodes(needed)
    except CycleError:  # ComfyUI's own check finds and names the cycle
        return [*_sort_despite_cycles(needed), *outputs]


def _sort_despite_cycles(graph: Graph) -> list[str]:
    """Return the nodes that can be sorted in spite of cycles, each after those that it reads."""
    unsorted = {name: {link.node for _, link in node.links if link.node in graph} for name, node in graph.items()}
    readers: dict[str, list[str]] = {}
    for name, sources in unsorted.items():
        for source in sources:
            readers.setdefault(source, []).append(name)
    order = [name for name, sources in unsorted.items() if not sources]
    for name in order:  # the list grows meanwhile
        for reader in readers.get(name, ()):
            unsorted[reader].discard(name)
            if not unsorted[reader]:
                order.append(reader)
    return order


def _collect_errors(
    prompt: Mapping[str, Any], outputs: Sequence[str], validated: Mapping[str, tuple[bool, list[Any], str]]
) -> dict[str, Any]:
    """Return ComfyUI's node_errors: the errors of each node, and the output nodes that cannot run because of them."""
    graph = read_api_format(prompt)
    found: dict[str, Any] = {}
    for output in (name for name in outputs if validated[name][0] is not True):
        for name in cull(graph, [output]):
            valid, reasons, _ = validated.get(name, (True, [], name))
            if valid is True or not reasons:
                continue
            entry = {"errors": reasons, "dependent_outputs": [], "class_type": prompt[name]["class_type"]}
            found.setdefault(name, entry)["dependent_outputs"].append(output)
    return found


def _explain(error: Exception) -> dict[str, Any]:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    extra = {"exception_type": name, "traceback": traceback.format_tb(error.__traceback__)}
    return _make_error("exception_during_validation", "Exception when validating node", str(error), extra)


def _make_error(
    kind: str, message: str, details: str = "", extra_info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": dict(extra_info or {})}
