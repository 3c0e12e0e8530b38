"""A ComfyUI in this process, and what it has loaded: everything that several runs share."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pipeline.engine.comfyui.call import NodeCaller
from pipeline.engine.comfyui.catalog import Catalog
from pipeline.engine.comfyui.start import ComfyUI, add_model_folder
from pipeline.engine.executor import Execution, Executor
from pipeline.errors import NodeError, Problem
from pipeline.events import Listener, NodeProgress
from pipeline.graph.check import CheckedGraph, check_graph
from pipeline.graph.model import Graph, Node

T = TypeVar("T")

COLLECT_EVERY = 10.0  # seconds between garbage collections, as in ComfyUI's own worker


class Session:
    """Checks and runs graphs on one ComfyUI; models and outputs stay from one run to the next.

    Not thread-safe: ComfyUI runs one graph at a time in a process. May be used inside a running event loop.
    """

    def __init__(self, comfyui: ComfyUI):
        """`comfyui` is what `start_comfyui` gave."""
        self.comfyui = comfyui
        self._loop = asyncio.new_event_loop()  # one lasting loop: primitives of async nodes stay bound to it
        self._run_coroutine(self._open_catalog())
        self._executor = Executor(self.comfyui.folder_paths.get_full_path)
        self._objects: dict[tuple[str, str], Any] = {}
        self._collected = time.monotonic()

    async def _open_catalog(self) -> None:
        self._catalog = await Catalog.open(self.comfyui)

    def check(self, graph: Graph, wanted: Sequence[str] = (), problems: Sequence[Problem] = ()) -> CheckedGraph:
        """Check a graph against the node classes of this ComfyUI; see `check_graph`. No model is loaded."""
        found = list(problems)
        signatures = self._run_coroutine(self._catalog.read_signatures(graph, found))
        return check_graph(graph, signatures, wanted, found, judge=self._judge)

    def _judge(self, node: Node) -> list[Problem]:
        caller = NodeCaller(self.comfyui, Graph({node.name: node}), {})
        return self._run_coroutine(caller.find_problems(node))

    def run(self, checked: CheckedGraph, listen: Listener = lambda event: None) -> Execution:
        """Run a checked graph; events go to `listen`. Raises NodeError. The outputs are inference tensors."""
        self._forget_objects(checked)
        caller = NodeCaller(self.comfyui, checked.graph, self._objects)
        return self._run_coroutine(self._run(checked, caller, listen))

    async def _run(self, checked: CheckedGraph, caller: NodeCaller, listen: Listener) -> Execution:
        import torch

        with torch.inference_mode(), self._progress(caller, listen), self._memory_kept(caller):
            return await self._executor.run(checked, caller, listen)

    def add_models(self, folder: Path) -> None:
        """Also search `folder`, laid out like ComfyUI's models/, after all others. Idempotent."""
        add_model_folder(self.comfyui.folder_paths, folder, first=False)

    def set_output_folder(self, folder: Path) -> None:
        """Where ComfyUI's own savers (SaveImage, SaveLatent, ...) write."""
        self.comfyui.folder_paths.set_output_directory(str(folder))

    def clear(self) -> None:
        """Release all outputs and unload all models."""
        self._executor.clear()
        self._objects.clear()
        self.comfyui.model_management.unload_all_models()
        self._collect_garbage()

    def _forget_objects(self, checked: CheckedGraph) -> None:
        """Node objects hold state (a LoRA file, say); those of nodes that are gone would hold it for ever."""
        kept = {(node.name, node.class_type) for node in checked.graph.values()}
        for key in self._objects.keys() - kept:
            del self._objects[key]

    @contextmanager
    def _progress(self, caller: NodeCaller, listen: Listener) -> Iterator[None]:
        """Turn ComfyUI's progress calls into events."""
        import comfy.utils
        from comfy_execution.progress import reset_progress_state
        from comfy_execution.utils import get_executing_context

        def hook(value: float, total: float, preview: Any = None, **_: Any) -> None:
            self.comfyui.model_management.throw_exception_if_processing_interrupted()
            context = get_executing_context()
            if context is not None:
                listen(NodeProgress(context.node_id, int(value), int(total)))

        reset_progress_state("latentgrid", caller.prompt)
        comfy.utils.set_progress_bar_global_hook(hook)
        try:
            yield
        finally:
            comfy.utils.set_progress_bar_global_hook(None)

    @contextmanager
    def _memory_kept(self, caller: NodeCaller) -> Iterator[None]:
        """What ComfyUI's server does about memory around a prompt."""
        import comfy.model_patcher

        management = self.comfyui.model_management
        management.cleanup_models_gc()
        tracker = getattr(comfy.model_patcher, "PromptModelTracker", None)  # since ComfyUI 0.30
        in_use = tracker() if tracker else None
        caller.mark_in_use = in_use.add if in_use else caller.mark_in_use
        try:
            yield
        except NodeError as error:
            if management.is_oom(error.__cause__):
                management.unload_all_models()
            raise
        finally:
            if in_use:
                in_use.end()
            if time.monotonic() - self._collected > COLLECT_EVERY:
                self._collect_garbage()

    def _collect_garbage(self) -> None:
        gc.collect()
        self.comfyui.model_management.soft_empty_cache()
        self._collected = time.monotonic()

    def _run_coroutine(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the session's loop; from inside another running loop (a notebook), in a thread of its own."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._loop.run_until_complete(coroutine)
        with ThreadPoolExecutor(1, "latentgrid-session") as thread:
            future = thread.submit(self._loop.run_until_complete, coroutine)
            try:
                return future.result()
            except KeyboardInterrupt:
                self.comfyui.nodes.interrupt_processing()  # the nodes stop at their next progress call
                raise
