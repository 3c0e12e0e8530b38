"""Call nodes of ComfyUI: their functions, lazy inputs, own validations and fingerprints.

What a call means (V1 and V3 classes, lists, hidden inputs, async functions) is defined by functions of ComfyUI's
execution.py, so those are called here. Their signatures are the same from ComfyUI 0.16 to 0.30.
"""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from pipeline.base.tensor_digest import digest_tensors
from pipeline.engine.comfyui.catalog import find_lazy_check, find_validator
from pipeline.engine.comfyui.lora_keys import LoraKeys
from pipeline.engine.comfyui.objects import NodeObjects
from pipeline.engine.comfyui.references import add_missing_frames
from pipeline.engine.comfyui.returns import Answer, is_blocked, read_answer
from pipeline.engine.comfyui.seed_batch import SeedBatch
from pipeline.engine.comfyui.start import ComfyUI
from pipeline.engine.seal import copy_value
from pipeline.errors import Problem
from pipeline.graph.api_format import is_link
from pipeline.graph.model import Link, Node

log = logging.getLogger(__name__)

PROMPT_ID = "latentgrid"


@dataclass(frozen=True)
class NodeOutputs:
    """The outputs of a node.

    outputs: a list of values for each output slot: one value for each call of the node, or several for a list output.
    ui: what an output node shows.
    latent_format: ComfyUI's format of a LATENT among the outputs, if known.
    """

    outputs: list[list[Any]]
    ui: Mapping[str, Any] = field(default_factory=dict)
    latent_format: Any = None
    _digests: dict[int, str | None] = field(default_factory=dict)

    def digest(self, slot: int) -> str | None:
        """Return the `digest_tensors` of an output slot, which is computed once for all runs that read it."""
        if slot not in self._digests:
            self._digests[slot] = digest_tensors(self.outputs[slot])
        return self._digests[slot]


@dataclass
class Call:
    """The calls of a node's function: one, or one for each entry of a list. Async functions may not have finished.

    results: what the calls returned; a task for a call of an async function.
    blocked: the messages of ExecutionBlockers that kept the function from being called.
    """

    target: Any
    results: list[Any]
    latent_format: Any = None
    blocked: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """The calls of async functions that have not finished."""
        return [one for one in self.results if isinstance(one, asyncio.Task) and not one.done()]

    async def wait(self) -> None:
        """Wait until all calls have returned or raised."""
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def read(self, execution: Any) -> Answer:
        """Return the outputs of the finished calls. Raises what one of them raised."""
        results = [one.result() if isinstance(one, asyncio.Task) else one for one in self.results]
        return read_answer(execution, self.target, results)


class NodeCaller:
    """The caller of the nodes of one prompt. The objects of node classes live as long as `objects` retains them.

    Example:
        caller = NodeCaller(comfyui, prompt, NodeObjects())
        call = await caller.call(node, sources, key)
        await call.wait()
        answer = call.read(caller.execution)
    """

    def __init__(
        self,
        comfyui: ComfyUI,
        prompt: Mapping[str, Any],
        objects: NodeObjects,
        extra_data: Mapping[str, Any] | None = None,
    ):
        """`prompt` is in API format, its literal lists without `__value__`; `extra_data` is as at ComfyUI's /prompt."""
        from comfy_execution.graph import DynamicPrompt

        self.execution = comfyui.execution
        self.objects = objects
        self._classes = comfyui.nodes.NODE_CLASS_MAPPINGS
        self._management = comfyui.model_management
        self._server = comfyui.server
        self._extra_data = dict(extra_data or {})
        # A copy, because ComfyUI memoises in the prompt, and nodes may change it.
        copied = {name: {**info, "inputs": copy.deepcopy(info.get("inputs", {}))} for name, info in prompt.items()}
        self.prompt = DynamicPrompt(copied)
        self.mark_in_use: Callable[[Any], None] = lambda outputs: None
        self.batch: SeedBatch | None = None
        self.batched = ""  # the KSampler that was planned for a batch, even if its seeds are sampled one by one
        self.lora_keys: dict[str, LoraKeys] = {}  # by node of the prompt
        self.changers: set[str] = set()  # class_types that change their inputs in place, so they get copies
        self._graph_counts: dict[tuple[str, int], int] = {}
        self._fingerprints = self.execution.IsChangedCache(PROMPT_ID, self.prompt, None)

    def add_node(self, name: str, info: Mapping[str, Any], parent: str) -> None:
        """Add to the prompt a node that `parent` expanded to."""
        self.prompt.add_ephemeral_node(name, info, parent, info.get("override_display_id", parent))

    def find_submitted(self, name: str) -> str:
        """Return the submitted node that `name` belongs to: itself, or the one that expanded to it."""
        return self.prompt.get_real_node_id(name)

    async def stop_if_interrupted(self) -> None:
        """Raise ComfyUI's InterruptProcessingException if the run was interrupted."""
        self._management.throw_exception_if_processing_interrupted()

    async def find_wanted(self, node: Node, sources: Mapping[str, NodeOutputs]) -> list[str]:
        """Return the inputs that the node asks for by check_lazy_status and that `sources` does not have yet."""
        cls = self._classes[node.class_type]
        if find_lazy_check(cls) is None:
            return []
        values, missing, v3_data = self._read_inputs(node, cls, _Sources(sources))
        if _is_called_for_none(cls, values):
            return []
        target = self.objects.get(node.name, node.class_type, cls)
        # With this flag the class gets the original names of dynamic inputs, so that it can ask for them.
        v3_data = {**v3_data, "create_dynamic_tuple": True}
        results = await self._map(node, target, values, "check_lazy_status", allow_interrupt=True, v3_data=v3_data)
        named = [name for result in results if isinstance(result, list) for name in result]
        return [
            name for name in dict.fromkeys(named) if isinstance(name, str) and (name not in values or name in missing)
        ]

    async def call(self, node: Node, sources: Mapping[str, NodeOutputs], key: str) -> Call:
        """Call the node's function. `sources` has the outputs of the linked nodes, `key` is the node's content key."""
        cls = self._classes[node.class_type]
        values, _, v3_data = self._read_inputs(node, cls, _Sources(sources))
        values = add_missing_frames(node.name, values)
        batch = self._find_batch(node, values, key)
        if node.class_type in self.changers:
            values = copy_value(values)  # all in one copy, so that one tensor in two inputs stays one tensor
        if batch:
            values["latent_image"] = batch.repeat(values["latent_image"])
        target = self.objects.get(node.name, node.class_type, cls)
        call = Call(target, [], _find_latent_format(node, values, sources))
        if _is_called_for_none(cls, values):
            return call
        for source in sources.values():
            self.mark_in_use(source.outputs)
        self._server.last_node_id = self.prompt.get_display_node_id(node.name)
        try:
            with batch.noise_prepared() if batch else nullcontext():
                call.results = await self.execution._async_map_node_over_list(
                    PROMPT_ID,
                    node.name,
                    target,
                    values,
                    target.FUNCTION,
                    allow_interrupt=True,
                    execution_block_cb=lambda blocker: _note_message(blocker, call.blocked),
                    pre_execute_cb=lambda index: self._reset_graph_count(node.name, index),
                    v3_data=v3_data,
                )
        finally:
            _reset_dynamic_vram()
        return call

    def _find_batch(self, node: Node, values: Mapping[str, list[Any]], key: str) -> SeedBatch | None:
        """Return the seed batch to call the node for, or None; set `batch` to None if the inputs do not allow it."""
        if self.batch is None or self.batch.node != node.name:
            return None
        if key not in self.batch.seeds:  # what the node reads has changed since the sweep was planned
            self.batch = None
        elif obstacle := self.batch.find_obstacle(values):
            log.info("%s: %s, so its seeds are sampled one by one", node.name, obstacle)
            self.batch = None
        return self.batch

    async def fingerprint(self, node: Node) -> Any:
        """Return what IS_CHANGED or fingerprint_inputs says of the node's constants; False for a class without it."""
        return await self._fingerprints.get(node.name)

    async def find_problems(self, node: Node, received_types: Mapping[str, str]) -> list[Problem]:
        """Validate the node's constants by the class's own validation (VALIDATE_INPUTS, validate_inputs).

        `received_types` has, for each linked input, the type of the output that it is linked to.
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
            results = await self._map(node, cls, values, function.__name__, v3_data=v3_data)
        except Exception as error:  # noqa: BLE001 (a class may raise anything)
            message = f"{node.class_type}'s own validation raised {type(error).__name__}: {error}"
            return [Problem("exception_during_validation", where, message)]
        refusals = [result for result in results if result is not True and not is_blocked(result)]
        messages = [result if isinstance(result, str) else "is refused" for result in refusals]
        return [Problem("custom_validation_failed", where, text) for text in messages]

    async def _map(self, node: Node, target: Any, values: Any, function: str, **options: Any) -> list[Any]:
        """Call a function of the node for each entry of its lists; return the results, awaited if it is async."""
        results = await self.execution._async_map_node_over_list(
            PROMPT_ID, node.name, target, values, function, **options
        )
        return await self.execution.resolve_map_node_over_list_results(results)

    def _read_inputs(self, node: Node, cls: type, sources: _Sources | None) -> tuple[Any, Any, Any]:
        inputs = self.prompt.get_node(node.name)["inputs"]
        values, missing, v3_data = self.execution.get_input_data(
            inputs, cls, node.name, sources, self.prompt, self._extra_data
        )
        # get_input_data takes a literal list that looks like a link for one.
        literals = {name: [one] for name, one in node.inputs.items() if not isinstance(one, Link) and is_link(one)}
        missing = {name: one for name, one in missing.items() if name not in literals}
        return {**values, **literals}, missing, v3_data

    def _reset_graph_count(self, name: str, index: int) -> None:
        self._graph_counts[name, index] = 0

    def make_prefix(self, name: str, index: int) -> str:
        """Return the prefix of the node ids of an expansion: `NAME.INDEX.NUMBER.`.

        `index` is the list entry that the node is called for, NUMBER counts the graphs that it made for that before.
        """
        number = self._graph_counts.get((name, index), 0)
        self._graph_counts[name, index] = number + 1
        return f"{name}.{index}.{number}."


def _reset_dynamic_vram() -> None:
    """Reset buffers, queues and limits as ComfyUI's executor does after each node while dynamic VRAM is on."""
    if not importlib.import_module("comfy.memory_management").aimdo_enabled:
        return
    for module, function in (
        ("comfy.model_management", "reset_cast_buffers"),
        ("comfy.model_prefetch", "cleanup_prefetch_queues"),  # since ComfyUI 0.24
        ("comfy_aimdo.model_vbar", "vbars_reset_watermark_limits"),
    ):
        if importlib.util.find_spec(module):
            getattr(importlib.import_module(module), function)()


def _is_called_for_none(cls: type, values: Mapping[str, list[Any]]) -> bool:
    """Return whether a node would be called for each entry of an empty list, that is, not at all."""
    return not getattr(cls, "INPUT_IS_LIST", False) and any(len(many) == 0 for many in values.values())


def _note_message(blocker: Any, messages: list[str]) -> Any:
    """Append the message of a blocker to `messages`; return a blocker without message for the nodes behind.

    This is what the `execution_block_cb` of ComfyUI's executor does, which shows the message as an error.
    """
    if blocker.message is None:
        return blocker
    messages.append(str(blocker.message))
    return type(blocker)(None)


class _Sources:
    """The outputs by node id, in place of the execution list that ComfyUI's get_input_data reads."""

    def __init__(self, sources: Mapping[str, NodeOutputs]):
        self._sources = sources

    def get_cache(self, from_node_id: str, to_node_id: str) -> NodeOutputs | None:
        return self._sources.get(from_node_id)


def _find_latent_format(node: Node, values: Mapping[str, list[Any]], sources: Mapping[str, NodeOutputs]) -> Any:
    """Return the latent format of a model among the inputs (or in a guider), else that of a latent among them."""
    for value in (one for many in values.values() for one in many):
        patcher = getattr(value, "model_patcher", value)
        found = getattr(getattr(patcher, "model", None), "latent_format", None)
        if found is not None:
            return found
    inherited = (sources[link.node].latent_format for _, link in node.links if link.node in sources)
    return next((found for found in inherited if found is not None), None)
