"""Calling a node of ComfyUI: its function, its own validation, its fingerprint.

What a call means (V1 and V3 classes, lists, hidden inputs, async functions) is defined by functions of ComfyUI's
execution.py, so those are called here; their signatures are the same from ComfyUI 0.16 to 0.30.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.engine.comfyui.catalog import find_validator
from pipeline.engine.comfyui.start import ComfyUI
from pipeline.errors import Problem
from pipeline.graph.api_format import write_api_format
from pipeline.graph.model import Graph, Node
from pipeline.graph.reader import VALUE


@dataclass(frozen=True)
class NodeOutputs:
    """What a node gave. `outputs` has a list for each output slot (of one value, but for list outputs).

    `ui` is what an output node shows; `latent_format` ComfyUI's format of a LATENT among the outputs, if known.
    """

    outputs: list[list[Any]]
    ui: Mapping[str, Any] = field(default_factory=dict)
    latent_format: Any = None


class NodeCaller:
    """Calls the nodes of one graph. Node objects live as long as `objects`, as they do in ComfyUI's server."""

    def __init__(self, comfyui: ComfyUI, graph: Graph, objects: dict[tuple[str, str], Any]):
        from comfy_execution.graph import DynamicPrompt

        self._execution = comfyui.execution
        self._classes = comfyui.nodes.NODE_CLASS_MAPPINGS
        self._objects = objects
        # A prompt of its own: ComfyUI memoises in it, and nodes may change it.
        self.prompt = DynamicPrompt(_unwrap_constants(write_api_format(graph)))
        self.prompt_id = "latentgrid"
        self.mark_in_use: Callable[[Any], None] = lambda outputs: None
        self._changes = self._execution.IsChangedCache(self.prompt_id, self.prompt, None)

    async def call(self, node: Node, sources: Mapping[str, NodeOutputs]) -> NodeOutputs:
        """Call the node's function; `sources` holds the outputs of the nodes it is linked to."""
        cls = self._classes[node.class_type]
        values, _, v3_data = self._read_inputs(node, cls, _Sources(sources))
        if (node.name, node.class_type) not in self._objects:
            self._objects[node.name, node.class_type] = cls()
        target = self._objects[node.name, node.class_type]
        for source in sources.values():
            self.mark_in_use(source.outputs)
        try:
            returned, ui, expands, pending = await self._execution.get_output_data(
                self.prompt_id, node.name, target, values, execution_block_cb=_raise_if_told, v3_data=v3_data
            )
        finally:
            _reset_dynamic_vram()
        if pending:
            tasks = [result for result in returned if isinstance(result, asyncio.Task)]
            await asyncio.gather(*tasks)
            results = [result.result() if isinstance(result, asyncio.Task) else result for result in returned]
            returned, ui, expands = self._execution.get_output_from_returns(results, target)
        if expands:
            raise NotImplementedError("nodes that expand into other nodes cannot run yet")
        self.mark_in_use(returned)
        return NodeOutputs(returned, ui, _find_latent_format(node, values, sources))

    async def fingerprint(self, node: Node) -> Any:
        """What IS_CHANGED or fingerprint_inputs says of the node's constants; False for a class without it."""
        return await self._changes.get(node.name)

    async def find_problems(self, node: Node, received_types: Mapping[str, str]) -> list[Problem]:
        """Ask the class's own validation (VALIDATE_INPUTS, validate_inputs) about the node's constants.

        `received_types` has the type of what is linked to each linked input.
        """
        cls = self._classes[node.class_type]
        function = find_validator(cls)
        if function is None:
            return []
        spec = inspect.getfullargspec(function)
        values, _, v3_data = self._read_inputs(node, cls, None)
        values = {name: value for name, value in values.items() if spec.varkw or name in spec.args}
        where = f"{node.name}.{next(iter(values))}" if len(values) == 1 else node.name
        if "input_types" in spec.args:
            values["input_types"] = [dict(received_types)]
        try:
            results = await self._execution._async_map_node_over_list(
                self.prompt_id, node.name, cls, values, function.__name__, v3_data=v3_data
            )
            results = await self._execution.resolve_map_node_over_list_results(results)
        except Exception as error:
            message = f"{node.class_type}'s own validation raised {type(error).__name__}: {error}"
            return [Problem("exception_during_validation", where, message)]
        wrong = [result for result in results if result is not True and not is_blocked(result)]
        said = [result if isinstance(result, str) else "is refused" for result in wrong]
        return [Problem("custom_validation_failed", where, text) for text in said]

    def _read_inputs(self, node: Node, cls: type, sources: _Sources | None) -> tuple[Any, Any, Any]:
        inputs = self.prompt.get_node(node.name)["inputs"]
        return self._execution.get_input_data(inputs, cls, node.name, sources, self.prompt, {})


def _reset_dynamic_vram() -> None:
    """What ComfyUI's executor does after each node while dynamic VRAM is on."""
    if not importlib.import_module("comfy.memory_management").aimdo_enabled:
        return
    for module, function in (
        ("comfy.model_management", "reset_cast_buffers"),
        ("comfy.model_prefetch", "cleanup_prefetch_queues"),  # since ComfyUI 0.24
        ("comfy_aimdo.model_vbar", "vbars_reset_watermark_limits"),
    ):
        if importlib.util.find_spec(module):
            getattr(importlib.import_module(module), function)()


def is_blocked(value: Any) -> bool:
    """Whether a value is ComfyUI's ExecutionBlocker: what reads it does not run."""
    return type(value).__name__ == "ExecutionBlocker"


def _raise_if_told(blocker: Any) -> Any:
    """A blocker with a message is an error to be shown, at the node that it keeps from running."""
    if blocker.message is not None:
        raise RuntimeError(f"blocked: {blocker.message}")
    return blocker


class _Sources:
    """Looks to ComfyUI's get_input_data like its execution list: outputs by node id."""

    def __init__(self, sources: Mapping[str, NodeOutputs]):
        self._sources = sources

    def get_cache(self, from_node_id: str, to_node_id: str) -> NodeOutputs | None:
        return self._sources.get(from_node_id)


def _unwrap_constants(prompt: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Take literal lists and mappings out of their `__value__`, as ComfyUI's validation does in place."""
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if isinstance(value, dict):
                node["inputs"][name] = value[VALUE]
    return prompt


def _find_latent_format(node: Node, values: Mapping[str, list[Any]], sources: Mapping[str, NodeOutputs]) -> Any:
    """The latent format of a model among the inputs (or in a guider), else that of a latent passed on."""
    for value in (one for many in values.values() for one in many):
        patcher = getattr(value, "model_patcher", value)
        found = getattr(getattr(patcher, "model", None), "latent_format", None)
        if found is not None:
            return found
    inherited = (sources[link.node].latent_format for _, link in node.links if link.node in sources)
    return next((found for found in inherited if found is not None), None)
