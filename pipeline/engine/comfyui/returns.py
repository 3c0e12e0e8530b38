"""Read what a node returned, in any of ComfyUI's forms, as outputs, `ui` and expansions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """What one call of a node that expands returned.

    nodes: the nodes that it expands to; None if this call does not expand.
    results: its results; one that comes from those nodes is a link, `[node id, output index]`.
    """

    nodes: Mapping[str, Mapping[str, Any]] | None
    results: Sequence[Any]


@dataclass(frozen=True)
class Answer:
    """What all calls of a node returned.

    outputs: a list of values for each slot; empty for a node that expands.
    parts: what each call of a node that expands returned; empty for any other node.
    """

    outputs: list[list[Any]]
    ui: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def read_answer(execution: Any, target: Any, results: Sequence[Any]) -> Answer:
    """Read what the calls of `target` returned, by ComfyUI's get_output_from_returns."""
    if not results:  # a list among its inputs was empty, so it was not called
        return Answer([[] for _ in target.RETURN_TYPES])
    restored = [_restore_block(target, one) for one in results]
    outputs, ui, expands = execution.get_output_from_returns(restored, target)
    if not expands:
        return Answer(outputs, ui)
    return Answer([], ui, tuple(Part(nodes, () if returned is None else returned) for nodes, returned in outputs))


def is_blocked(value: Any) -> bool:
    """Return whether a value is ComfyUI's ExecutionBlocker, which keeps the nodes that read it from running."""
    return type(value).__name__ == "ExecutionBlocker"


def _restore_block(target: Any, returned: Any) -> Any:
    """Return what a call returned, with a blocker for each output if it is the output of a V3 node without results.

    A V3 node that blocks returns such an output, and ComfyUI's get_output_from_returns would lose it.
    """
    from comfy_api.internal import _NodeOutputInternal
    from comfy_execution.graph_utils import ExecutionBlocker

    if not isinstance(returned, _NodeOutputInternal) or not target.RETURN_TYPES:
        return returned
    output: Any = returned
    if output.expand is not None or output.result is not None:
        return returned
    blocked: dict[str, Any] = {"result": ExecutionBlocker(output.block_execution)}
    if output.ui is not None:
        blocked["ui"] = output.ui if isinstance(output.ui, dict) else output.ui.as_dict()
    return blocked
