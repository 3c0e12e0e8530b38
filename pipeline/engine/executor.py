"""Runs a checked graph: each node once, in order, unless its outputs are known already.

The executor knows order, cache, release and events. What a node is and how it is called is behind `NodeCaller`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.engine.comfyui.call import NodeCaller, NodeOutputs
from pipeline.engine.keys import Identify, find_known, make_key
from pipeline.errors import NodeError
from pipeline.events import Listener, NodeFinished, NodeStarted, RunStarted
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Link, Node
from pipeline.graph.order import cull

IsReadLater: TypeAlias = Callable[[str], bool]


@dataclass(frozen=True)
class Execution:
    """What one execution of a graph did: outputs of the targets, what ran and what came from the cache."""

    outputs: Mapping[str, NodeOutputs]
    executed: tuple[str, ...]
    cached: tuple[str, ...]
    seconds: float


class Executor:
    """Runs graphs one after the other and keeps outputs from one to the next, by content.

    Without a plan it is ComfyUI's classic cache: the outputs of the last graph stay, and what the next one does not
    use is released before its first node runs, so that two checkpoints are never held at once.
    """

    def __init__(self, identify: Identify):
        """`identify` tells nodes of the same inputs apart, as long as this process lasts."""
        self._identify = identify
        self._cache: dict[str, NodeOutputs] = {}

    async def run(
        self, checked: CheckedGraph, caller: NodeCaller, listen: Listener, is_read_later: IsReadLater | None = None
    ) -> Execution:
        """Run the nodes of `checked.order`. Raises NodeError for a node that fails.

        `is_read_later` tells which keys later runs will read: just their outputs stay, all others are released as
        soon as nothing in this run reads them.
        """
        began = time.perf_counter()
        keys = await self.make_keys(checked, caller)
        known = find_known(checked, keys, self._cache)
        needed = cull(checked.graph, checked.targets, known)
        stays = is_read_later or {keys[name] for name in checked.order}.__contains__
        readers = Counter(keys[link.node] for node in needed.values() for _, link in node.links)
        readers.update(keys[name] for name in checked.targets)
        written = {keys[name] for name in checked.order if name not in known}  # of output nodes that ran before
        self._cache = {
            key: outputs for key, outputs in self._cache.items() if key not in written and (stays(key) or readers[key])
        }
        listen(RunStarted(checked.order, tuple(name for name in checked.order if name not in needed)))
        executed: dict[str, None] = {}  # a set that keeps its order
        for name in (name for name in checked.order if name in needed):
            node = needed[name]
            # Two nodes of one content run once: the second finds the outputs of the first.
            if keys[name] not in self._cache:
                sources = {link.node: self._cache[keys[link.node]] for _, link in node.links}
                self._cache[keys[name]] = await self._run_node(node, sources, caller, listen)
                executed[name] = None
            for key in (keys[link.node] for _, link in node.links):
                readers[key] -= 1
                if not readers[key] and not stays(key):
                    self._cache.pop(key, None)
        outputs = {name: self._cache[keys[name]] for name in checked.targets}
        for key in (keys[name] for name in checked.targets if not stays(keys[name])):
            self._cache.pop(key, None)
        return Execution(
            outputs=outputs,
            executed=tuple(executed),
            cached=tuple(name for name in checked.order if name not in executed),
            seconds=time.perf_counter() - began,
        )

    def clear(self) -> None:
        """Release all outputs."""
        self._cache.clear()

    async def make_keys(
        self, checked: CheckedGraph, caller: NodeCaller, identify: Identify | None = None
    ) -> dict[str, str]:
        """The content key of each node."""
        identify = identify or self._identify
        keys: dict[str, str] = {}
        for name in checked.order:
            node, signature = checked.graph[name], checked.signatures[name]
            keys[name] = make_key(node, signature, keys, await caller.fingerprint(node), identify(node, signature))
        return keys

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
