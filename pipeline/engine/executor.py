"""Runs a checked graph: each node once, in order, unless its outputs are known already.

The executor knows order, cache, release and events. What a node is and how it is called is behind `NodeCaller`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.engine.comfyui.call import NodeCaller, NodeOutputs
from pipeline.engine.keys import FindFile, make_key
from pipeline.errors import NodeError
from pipeline.events import Listener, NodeFinished, NodeStarted, RunStarted
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Link, Node


@dataclass(frozen=True)
class Execution:
    """What one execution of a graph did: outputs of the targets, what ran and what came from the cache."""

    outputs: Mapping[str, NodeOutputs]
    executed: tuple[str, ...]
    cached: tuple[str, ...]
    seconds: float


class Executor:
    """Runs graphs one after the other and keeps the outputs of the last one, by content.

    As ComfyUI's classic cache: what the next graph does not use is released before its first node runs, so that
    two checkpoints are never held at once.
    """

    def __init__(self, find_file: FindFile):
        self._find_file = find_file
        self._cache: dict[str, NodeOutputs] = {}

    async def run(self, checked: CheckedGraph, caller: NodeCaller, listen: Listener) -> Execution:
        """Run the nodes of `checked.order`. Raises NodeError for a node that fails."""
        began = time.perf_counter()
        keys = await self._make_keys(checked, caller)
        needed = self._find_needed(checked, keys)
        wanted = set(keys.values()) - {keys[name] for name in checked.order if checked.signatures[name].is_output_node}
        self._cache = {key: outputs for key, outputs in self._cache.items() if key in wanted}
        cached = tuple(name for name in checked.order if keys[name] in self._cache)
        listen(RunStarted(checked.order, cached))
        executed: dict[str, None] = {}  # a set that keeps its order
        for name in needed:
            # Two nodes of one content run once: the second finds the outputs of the first.
            if keys[name] not in self._cache:
                sources = {link.node: self._cache[keys[link.node]] for _, link in checked.graph[name].links}
                self._cache[keys[name]] = await self._run_node(checked.graph[name], sources, caller, listen)
                executed[name] = None
        return Execution(
            outputs={name: self._cache[keys[name]] for name in checked.targets},
            executed=tuple(executed),
            cached=tuple(name for name in checked.order if name not in executed),
            seconds=time.perf_counter() - began,
        )

    def clear(self) -> None:
        """Release all outputs."""
        self._cache.clear()

    async def _make_keys(self, checked: CheckedGraph, caller: NodeCaller) -> dict[str, str]:
        keys: dict[str, str] = {}
        for name in checked.order:
            node, signature = checked.graph[name], checked.signatures[name]
            keys[name] = make_key(node, signature, keys, await caller.fingerprint(node), self._find_file)
        return keys

    def _find_needed(self, checked: CheckedGraph, keys: Mapping[str, str]) -> tuple[str, ...]:
        """The nodes that must run: from the targets upwards, no further than what the cache holds.

        Output nodes always run: what they are for is to write into this run's folder.
        """
        needed: set[str] = set()
        waiting = list(checked.targets)
        while waiting:
            name = waiting.pop()
            if name not in needed and (keys[name] not in self._cache or checked.signatures[name].is_output_node):
                needed.add(name)
                waiting.extend(link.node for _, link in checked.graph[name].links)
        return tuple(name for name in checked.order if name in needed)

    async def _run_node(
        self, node: Node, sources: Mapping[str, NodeOutputs], caller: NodeCaller, listen: Listener
    ) -> NodeOutputs:
        listen(NodeStarted(node.name, node.class_type))
        began = time.perf_counter()
        try:
            outputs = await caller.call(node, sources)
        except Exception as error:
            raise NodeError(node.name, node.class_type, describe_inputs(node, sources), error) from error
        listen(NodeFinished(node.name, node.class_type, time.perf_counter() - began))
        return outputs


def describe_inputs(node: Node, sources: Mapping[str, NodeOutputs]) -> dict[str, str]:
    """A short text for each input, for error messages: constants as they are, tensors by shape and dtype."""
    return {
        name: describe(_follow(value, sources)) if isinstance(value, Link) else describe(value)
        for name, value in node.inputs.items()
    }


def _follow(link: Link, sources: Mapping[str, NodeOutputs]) -> Any:
    assert isinstance(link.output, int)
    values = sources[link.node].outputs[link.output]
    return values[0] if len(values) == 1 else values


def describe(value: Any) -> str:
    """A value in a few words."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__}{list(shape)} {getattr(value, 'dtype', '')}".strip()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(describe(item) for item in value[:3]) + (", ..." if len(value) > 3 else "") + "]"
    if isinstance(value, str | int | float | bool | None):
        text = repr(value)
        return text if len(text) <= 80 else text[:77] + "..."
    return type(value).__name__
