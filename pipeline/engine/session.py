"""A ComfyUI in this process, and what it has loaded: everything that several runs share."""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeVar

from pipeline.engine.comfyui.call import NodeCaller
from pipeline.engine.comfyui.catalog import Catalog
from pipeline.engine.comfyui.node_code import hash_node_code
from pipeline.engine.comfyui.start import ComfyUI, add_model_folder
from pipeline.engine.comfyui.surroundings import MemoryKeeper, progress_heard
from pipeline.engine.executor import Execution, Executor, IsReadLater
from pipeline.engine.identity import Identity, describe_platform, make_identity_key
from pipeline.engine.keys import find_model_files
from pipeline.errors import NodeError, Problem
from pipeline.events import Listener
from pipeline.file_state import FileState
from pipeline.graph.check import CheckedGraph, check_graph
from pipeline.graph.model import Graph, Node
from pipeline.graph.signature import Signature

log = logging.getLogger(__name__)

T = TypeVar("T")


class Session:
    """Checks and runs graphs on one ComfyUI; models and outputs stay from one run to the next.

    Not thread-safe: ComfyUI runs one graph at a time in a process. May be used inside a running event loop.
    """

    def __init__(self, comfyui: ComfyUI):
        """`comfyui` is what `start_comfyui` gave."""
        self.comfyui = comfyui
        self._loop = asyncio.new_event_loop()  # one lasting loop: primitives of async nodes stay bound to it
        atexit.register(self.close)
        self._catalog = self._wait_for(Catalog.open(comfyui))
        self._executor = Executor(self._identify_files)
        self._memory = MemoryKeeper(comfyui)
        self._objects: dict[tuple[str, str], Any] = {}
        self._model_folders: set[Path] = set()
        # What the imports made stays for ever. Without looking through it, a collection takes a tenth of the time.
        gc.freeze()

    def check(self, graph: Graph, wanted: Sequence[str] = (), problems: Sequence[Problem] = ()) -> CheckedGraph:
        """Check a graph against the node classes of this ComfyUI; see `check_graph`. No model is loaded."""
        found = list(problems)
        signatures = self._wait_for(self._catalog.read_signatures(graph, found))
        return check_graph(graph, signatures, wanted, found, judge=self._judge)

    def _judge(self, node: Node, received_types: Mapping[str, str]) -> list[Problem]:
        caller = NodeCaller(self.comfyui, Graph({node.name: node}), {})
        return self._wait_for(caller.find_problems(node, received_types))

    def make_keys(self, checked: CheckedGraph) -> dict[str, str]:
        """The content key of each node: nodes of one key give the same outputs, in whichever graph they are."""
        return self._wait_for(self._executor.make_keys(checked, NodeCaller(self.comfyui, checked.graph, self._objects)))

    def identify(self, checked: CheckedGraph, settings: Mapping[str, Any]) -> Identity:
        """What the results of a checked graph follow from; `settings` are those that shape what is kept of them."""
        caller = NodeCaller(self.comfyui, checked.graph, self._objects)
        keys = self._wait_for(self._executor.make_keys(checked, caller, self._hash_code))
        files = {
            f"{name}.{key}": FileState.of(path)
            for name, node in checked.graph.items()
            for key, path in find_model_files(node, checked.signatures[name], self._find_file).items()
        }
        return Identity(make_identity_key(checked, keys, {**settings, **describe_platform(self.comfyui)}), files)

    def _identify_files(self, node: Node, signature: Signature) -> list[Any]:
        files = find_model_files(node, signature, self._find_file)
        return [astuple(FileState.of(path)) for path in files.values()]

    def _hash_code(self, node: Node, signature: Signature) -> str:
        return hash_node_code(self._catalog.classes[node.class_type], self.comfyui.installation.path)

    def _find_file(self, folder: str, name: str) -> str | None:
        return self.comfyui.folder_paths.get_full_path(folder, name)

    def run(
        self,
        checked: CheckedGraph,
        listen: Listener = lambda event: None,
        is_read_later: IsReadLater | None = None,
    ) -> Execution:
        """Run a checked graph; events go to `listen`. Raises NodeError. The outputs are inference tensors.

        The outputs of the run stay for the next one; or, given `is_read_later`, those whose key it says are. Out of
        GPU memory, all models and outputs are let go and the run is tried once more.
        """
        self._forget_objects(checked)
        caller = NodeCaller(self.comfyui, checked.graph, self._objects)
        try:
            return self._wait_for(self._run(checked, caller, listen, is_read_later))
        except NodeError as error:
            if not self._memory.ran_out(error):
                raise
            log.warning("%s\nAll models and outputs are let go, and the run is tried once more", error)
        # Not in the handler: the error's traceback holds tensors.
        self.clear()
        return self._wait_for(self._run(checked, caller, listen, is_read_later))

    async def _run(
        self, checked: CheckedGraph, caller: NodeCaller, listen: Listener, is_read_later: IsReadLater | None
    ) -> Execution:
        import torch

        with torch.inference_mode(), progress_heard(self.comfyui, caller, listen), self._memory.around_run(caller):
            return await self._executor.run(checked, caller, listen, is_read_later)

    def add_models(self, folder: Path) -> None:
        """Also search `folder`, laid out like ComfyUI's models/, after all others. Idempotent."""
        if folder not in self._model_folders:
            add_model_folder(self.comfyui.folder_paths, folder, first=False)
            self._model_folders.add(folder)

    def set_output_folder(self, folder: Path) -> None:
        """Where ComfyUI's own savers (SaveImage, SaveLatent, ...) write."""
        self.comfyui.folder_paths.set_output_directory(str(folder))

    def close(self) -> None:
        """Release all outputs; done at exit in any case, because models let go of later find torch half gone."""
        atexit.unregister(self.close)
        self._executor.clear()
        self._objects.clear()
        self._loop.close()

    def clear(self) -> None:
        """Release all outputs and unload all models."""
        self._executor.clear()
        self._objects.clear()
        self.comfyui.model_management.unload_all_models()
        self._memory.collect()

    def _forget_objects(self, checked: CheckedGraph) -> None:
        """Node objects hold state (a LoRA file, say); those of nodes that are gone would hold it for ever.

        Those of output nodes go as well: ComfyUI's savers ask for the output folder when they are made.
        """
        kept = {
            (name, node.class_type)
            for name, node in checked.graph.items()
            if not checked.signatures[name].is_output_node
        }
        for key in self._objects.keys() - kept:
            del self._objects[key]

    def _run_until_complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return self._loop.run_until_complete(coroutine)
        except BaseException:
            self._loop.run_until_complete(_cancel_tasks())
            raise

    def _wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the session's loop; from inside another running loop (a notebook), in a thread of its own."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._run_until_complete(coroutine)
        with ThreadPoolExecutor(1, "latentgrid-session") as thread:
            future = thread.submit(self._run_until_complete, coroutine)
            try:
                return future.result()
            except KeyboardInterrupt:
                self.comfyui.nodes.interrupt_processing()  # the nodes stop at their next progress call
                raise


async def _cancel_tasks() -> None:
    """End what a broken run left behind; the tasks of its async nodes would go on in the next run."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
