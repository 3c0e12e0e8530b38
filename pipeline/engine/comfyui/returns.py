"""What a node returned, in ComfyUI's many forms, read as outputs, `ui` and expansions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """What one call of a node that expands gave: the nodes it expands to (None: none) and its results.

    A result of nodes that it expands to may be a link, `[node id, output index]`.
    """

    nodes: Mapping[str, Mapping[str, Any]] | None
    results: Sequence[Any]


@dataclass(frozen=True)
class Answer:
    """What all calls of a node gave. `outputs` has a list of values for each slot; of a node that expands, `parts`
    has what its calls gave instead."""

    outputs: list[list[Any]]
    ui: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def read_answer(execution: Any, target: Any, results: Sequence[Any]) -> Answer:
    """Read what the calls of `target` returned, by ComfyUI's own rules."""
    if not results:  # it was called for no entry of an empty list
        return Answer([[] for _ in target.RETURN_TYPES])
    settled = [_settle_block(target, one) for one in results]
    outputs, ui, expands = execution.get_output_from_returns(settled, target)
    if not expands:
        return Answer(outputs, ui)
    return Answer([], ui, tuple(Part(nodes, () if given is None else given) for nodes, given in outputs))


def is_blocked(value: Any) -> bool:
    """Whether a value is ComfyUI's ExecutionBlocker: what reads it does not run."""
    return type(value).__name__ == "ExecutionBlocker"


def _settle_block(target: Any, returned: Any) -> Any:
    """A V3 node that blocks returns an output without results, which ComfyUI loses; give it a blocker for each."""
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
