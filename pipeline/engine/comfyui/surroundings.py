"""Do what ComfyUI's server does around a prompt: pass on progress, manage memory, collect garbage."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.base.events import Event, Listener, NodeProgress, NodeStarted
from pipeline.engine.comfyui.call import PROMPT_ID, NodeCaller
from pipeline.engine.comfyui.start import ComfyUI
from pipeline.errors import NodeError

COLLECT_EVERY = 10.0  # seconds between garbage collections, as in ComfyUI's own worker


@contextmanager
def progress_heard(comfyui: ComfyUI, caller: NodeCaller, listen: Listener) -> Iterator[None]:
    """Turn the progress calls of nodes (ProgressBar, set_progress) into events while the context lasts."""
    import comfy.utils
    from comfy_execution import progress
    from comfy_execution.graph import DynamicPrompt
    from comfy_execution.utils import get_executing_context

    class Handler(progress.ProgressHandler):
        def update_handler(self, node_id: str, value: float, max_value: float, *_: Any, **__: Any) -> None:
            listen(NodeProgress(node_id, int(value), int(max_value)))

    def hook(value: float, total: float, preview: Any = None, *_: Any, node_id: str | None = None, **__: Any) -> None:
        comfyui.model_management.throw_exception_if_processing_interrupted()
        context = get_executing_context()
        node = node_id or (context.node_id if context else comfyui.server.last_node_id)
        if node is not None:
            progress.get_progress_state().update_progress(node, value, total, preview)

    progress.reset_progress_state(PROMPT_ID, caller.prompt)
    progress.add_progress_handler(Handler("latentgrid"))
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        progress.reset_progress_state(PROMPT_ID, DynamicPrompt({}))  # releases expanded nodes


@contextmanager
def expansions_named(caller: NodeCaller) -> Iterator[None]:
    """Let each node that expands name its nodes after itself while the context lasts.

    ComfyUI uses the node that was called last, so that an async node that continues later takes another node's prefix.
    """
    from comfy_execution.graph_utils import GraphBuilder
    from comfy_execution.utils import get_executing_context

    builder: Any = GraphBuilder
    original = builder.__dict__["alloc_prefix"]

    def alloc_prefix(cls: Any, root: Any = None, call_index: Any = None, graph_index: Any = None) -> str:
        context = get_executing_context()
        if context is None or root is not None or call_index is not None or graph_index is not None:
            return original.__get__(None, cls)(root, call_index, graph_index)
        return caller.make_prefix(context.node_id, context.list_index or 0)

    builder.alloc_prefix = classmethod(alloc_prefix)
    try:
        yield
    finally:
        builder.alloc_prefix = original


class MemoryKeeper:
    """The management of ComfyUI's memory over many runs, as the worker of its server does it."""

    def __init__(self, comfyui: ComfyUI):
        self._management = comfyui.model_management
        self._last_collection = time.monotonic()

    @contextmanager
    def around_run(self, caller: NodeCaller) -> Iterator[None]:
        """Mark models as in use during the run, unload all of them if memory ran out, and collect garbage."""
        import comfy.model_patcher

        self._management.interrupt_current_processing(False)
        self._management.cleanup_models_gc()
        tracker = getattr(comfy.model_patcher, "PromptModelTracker", None)  # since ComfyUI 0.30
        in_use = tracker() if tracker else None
        caller.mark_in_use = in_use.add if in_use else caller.mark_in_use
        try:
            yield
        except NodeError as error:
            if self.ran_out(error):
                self._management.unload_all_models()
            raise
        finally:
            if in_use:
                in_use.end()
            if self._management.DISABLE_SMART_MEMORY:
                self._management.unload_all_models()
            if time.monotonic() - self._last_collection > COLLECT_EVERY:
                self.collect()

    def collect(self) -> None:
        """Collect garbage and empty the GPU's cache."""
        gc.collect()
        self._management.soft_empty_cache()
        self._last_collection = time.monotonic()

    def ran_out(self, error: NodeError) -> bool:
        """Return whether a node failed because GPU memory ran out."""
        cause = error.__cause__
        if hasattr(self._management, "is_oom"):
            return bool(self._management.is_oom(cause))
        return isinstance(cause, self._management.OOM_EXCEPTION)  # ComfyUI before 0.18


class SharedGenerators:
    """The random generators of torch, numpy and Python, from which nodes without a seed of their own draw."""

    def __init__(self) -> None:
        self._seeds: random.Random | None = None

    @contextmanager
    def changed(self, seed: int) -> Iterator[None]:
        """Seed the generators anew before each node while the context lasts, from `seed`; restore them at the end.

        A node that seeds its generator gives the same outputs as ever. One that does not could also give the same after
        a KSampler, whose own seed determines where it leaves torch's generator, so seeding once would not show it.
        """
        import numpy as np
        import torch

        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self._seeds = random.Random(seed)
        try:
            yield
        finally:
            self._seeds = None
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])

    def hear(self, event: Event) -> None:
        """Handle an event of the executor: before each node, seed the generators if `changed` is active."""
        import numpy as np
        import torch

        if self._seeds and isinstance(event, NodeStarted):
            seed = self._seeds.getrandbits(32)
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
