"""What ComfyUI's server does around a prompt: progress calls, memory, garbage."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.engine.comfyui.call import NodeCaller
from pipeline.engine.comfyui.start import ComfyUI
from pipeline.errors import NodeError
from pipeline.events import Listener, NodeProgress

COLLECT_EVERY = 10.0  # seconds between garbage collections, as in ComfyUI's own worker


@contextmanager
def progress_heard(comfyui: ComfyUI, caller: NodeCaller, listen: Listener) -> Iterator[None]:
    """Turn the progress calls of nodes into events."""
    import comfy.utils
    from comfy_execution.progress import reset_progress_state
    from comfy_execution.utils import get_executing_context

    def hook(value: float, total: float, preview: Any = None, **_: Any) -> None:
        comfyui.model_management.throw_exception_if_processing_interrupted()
        context = get_executing_context()
        if context is not None:
            listen(NodeProgress(context.node_id, int(value), int(total)))

    reset_progress_state(caller.prompt_id, caller.prompt)
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(None)


class MemoryKeeper:
    """Keeps ComfyUI's memory in order over many runs, as the worker of its server does."""

    def __init__(self, comfyui: ComfyUI):
        self._management = comfyui.model_management
        self._collected = time.monotonic()

    @contextmanager
    def around_run(self, caller: NodeCaller) -> Iterator[None]:
        """Mark the models in use while the run lasts, unload all after running out of memory, collect garbage."""
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
            if time.monotonic() - self._collected > COLLECT_EVERY:
                self.collect()

    def collect(self) -> None:
        """Collect garbage and empty the GPU's cache."""
        gc.collect()
        self._management.soft_empty_cache()
        self._collected = time.monotonic()

    def ran_out(self, error: NodeError) -> bool:
        """Whether a node failed for want of GPU memory."""
        cause = error.__cause__
        if hasattr(self._management, "is_oom"):
            return bool(self._management.is_oom(cause))
        return isinstance(cause, self._management.OOM_EXCEPTION)  # ComfyUI before 0.18
