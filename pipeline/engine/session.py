"""A session: a ComfyUI in this process with everything that several runs share."""

from __future__ import annotations

import atexit
import copy
import gc
import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.events import Event, Listener
from pipeline.engine.cache_policy import CachePolicy
from pipeline.engine.comfyui.call import NodeCaller
from pipeline.engine.comfyui.catalog import Catalog
from pipeline.engine.comfyui.facts import describe_codes, describe_comfyui
from pipeline.engine.comfyui.lora_keys import lora_keys_counted
from pipeline.engine.comfyui.named_files import MOST_FILES
from pipeline.engine.comfyui.objects import NodeObjects
from pipeline.engine.comfyui.prompt_check import check_prompt
from pipeline.engine.comfyui.seed_batch import SeedBatch
from pipeline.engine.comfyui.start import ComfyUI, add_model_folder
from pipeline.engine.comfyui.surroundings import (
    MemoryKeeper,
    SharedGenerators,
    expansions_named,
    progress_heard,
)
from pipeline.engine.executor import Execution, Executor, IsReadLater
from pipeline.engine.identity import Identity, make_cell
from pipeline.engine.input_check import find_input_problems
from pipeline.engine.node_facts import NodeFacts
from pipeline.engine.own_loop import OwnLoop
from pipeline.errors import ConfigError, NodeError, Problem
from pipeline.graph.api_format import find_literals, read_api_format, write_api_prompt
from pipeline.graph.check import CheckedGraph, check_graph
from pipeline.graph.model import Graph, Node
from pipeline.graph.order import cull, sort_nodes
from pipeline.graph.signature import Signature
from pipeline.workflow.definitions import NodeDefinition

log = logging.getLogger(__name__)

TOO_MANY = f"the folder has more than {MOST_FILES} files, too many to compare"


class Session:
    """A ComfyUI that checks and runs graphs; models and outputs are retained from one run to the next.

    It is not thread-safe, because ComfyUI runs one graph at a time in a process. It may be used inside a running event
    loop.

    Example:
        session = Session(start_comfyui(ComfyUISettings()))
        execution = session.run(prompt)  # in ComfyUI's API format
    """

    def __init__(self, comfyui: ComfyUI):
        """`comfyui` is what `start_comfyui` returned."""
        self.comfyui = comfyui
        self._loop = OwnLoop(comfyui.nodes.interrupt_processing)
        atexit.register(self.close)
        comfyui.server.loop = self._loop.loop
        self._catalog = self._loop.run(Catalog.open(comfyui))
        self._nodes = NodeFacts(comfyui, self._catalog)
        self._executor = Executor(self._nodes.identify, self._read_signatures)
        self._memory = MemoryKeeper(comfyui)
        self.generators = SharedGenerators()
        self._objects = NodeObjects()
        self._model_folders: set[Path] = set()
        self._runs_started = 0
        self._surroundings: dict[str, str] = {}
        self._too_large: set[tuple[str, ...]] = set()  # the keys of seed batches that ran out of memory
        # The objects of the imports stay forever. A collection that skips them takes a tenth of the time.
        gc.freeze()

    def check(
        self,
        graph: Graph,
        wanted: Sequence[str] = (),
        problems: Sequence[Problem] = (),
        needs_files: bool = True,
    ) -> CheckedGraph:
        """Check a graph against the node classes of this ComfyUI; see `check_graph`. No model is loaded.

        Without `needs_files`, files that the graph reads may be missing, and no class validates its inputs itself.
        """
        found = list(problems)
        signatures = self._loop.run(self._catalog.read_signatures(graph, found))
        if not needs_files:
            return check_graph(graph, signatures, wanted, found, needs_files=False)

        def inspect(graph: Graph) -> list[Problem]:
            return find_input_problems(graph, signatures, self._nodes.find_models, self._describe_tensors)

        return check_graph(graph, signatures, wanted, found, self._find_own_problems, inspect=inspect)

    def read_definitions(self, class_types: Collection[str]) -> dict[str, NodeDefinition]:
        """Return what the GUI would know of these class_types; a class_type that nothing defines is missing."""
        return self._loop.run(self._catalog.read_definitions(set(class_types)))

    def read_signatures(self, graph: Graph) -> dict[str, Signature]:
        """Return the signatures of a graph's nodes by name. Raises ConfigError for unknown class_types."""
        return self._loop.run(self._read_signatures(graph))

    def check_prompt(
        self, prompt: Mapping[str, Mapping[str, Any]], targets: Sequence[str] | None = None
    ) -> CheckedGraph:
        """Check a prompt in ComfyUI's API format as ComfyUI's server does. No model is loaded.

        `targets` are the wanted output nodes, None means all. An output that cannot run is dropped, and the result's
        `node_errors` say why. Raises PromptError if no output is left. `prompt` itself is not changed.
        """
        copied = {name: {**info, "inputs": copy.deepcopy(info.get("inputs", {}))} for name, info in prompt.items()}
        return self._loop.run(self._check_prompt(copied, targets))

    def _show_to_packs(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Return the prompt after packs have seen it, and perhaps changed it, before it is checked."""
        return self.comfyui.server.trigger_on_prompt({"prompt": prompt, "extra_data": {}})["prompt"]

    async def _check_prompt(self, prompt: dict[str, Any], targets: Sequence[str] | None) -> CheckedGraph:
        await self._catalog.load({str(info.get("class_type")) for info in prompt.values()})
        prompt = self._show_to_packs(prompt)
        literals = find_literals(prompt)
        outputs, node_errors = await check_prompt(self.comfyui, prompt, targets, self._catalog.explain_failures())
        graph = read_api_format(prompt, literals)
        signatures = await self._read_signatures(graph)
        order = sort_nodes(cull(graph, outputs))
        return CheckedGraph(graph, signatures, order, tuple(outputs), prompt=prompt, node_errors=node_errors)

    async def _read_signatures(self, graph: Graph) -> dict[str, Signature]:
        problems: list[Problem] = []
        signatures = await self._catalog.read_signatures(graph, problems)
        if problems:
            raise ConfigError(problems)
        return signatures

    def _make_caller(
        self, checked: CheckedGraph, extra_data: Mapping[str, Any] | None = None, batched: str = ""
    ) -> NodeCaller:
        prompt = checked.prompt or write_api_prompt(checked.graph)
        caller = NodeCaller(self.comfyui, prompt, self._objects, extra_data)
        caller.batched = batched
        return caller

    def _find_own_problems(self, node: Node, received_types: Mapping[str, str]) -> list[Problem]:
        caller = NodeCaller(self.comfyui, write_api_prompt(Graph({node.name: node})), NodeObjects())
        return self._loop.run(caller.find_problems(node, received_types))

    def _describe_tensors(self, node: Node) -> Any:
        """Return what the class says of the tensors that this node will give; None if it says nothing or fails."""
        describe = getattr(self._catalog.classes.get(node.class_type), "describe_tensors", None)
        if describe is None:
            return None
        try:
            return describe(**node.inputs)
        except (TypeError, ValueError, OSError):  # the class's own validation reports what is wrong with its file
            return None

    def make_keys(self, checked: CheckedGraph, batched: str = "") -> dict[str, str]:
        """Return the content key of each node. Nodes with the same key give the same outputs, also in other graphs.

        `batched` names a KSampler that is to run for several seeds at once.
        """
        return self._loop.run(self._executor.make_keys(checked, self._make_caller(checked, batched=batched)))

    def note_surroundings(self, facts: Mapping[str, str]) -> None:
        """Release all outputs if the `facts` of the process, such as torch's threads, have changed."""
        if facts != self._surroundings:
            self._executor.clear()
            self._surroundings = dict(facts)

    def use_cache(self, policy: str) -> None:
        """Set how long outputs are retained: `classic` (the default), `all`, `lru:N` or `none`; see CachePolicy."""
        self._executor.cache.policy = CachePolicy.parse(policy)

    def interrupt(self) -> None:
        """Interrupt the run of another thread, which raises RunInterrupted at its next node or progress call."""
        self.comfyui.nodes.interrupt_processing()

    def identify(self, checked: CheckedGraph, settings: Mapping[str, Any], facts: Mapping[str, str]) -> Identity:
        """Return what the results of a checked graph depend on. Raises OSError.

        `settings` are those that shape which results are kept, `facts` are those that may change the results.
        """
        keys = self._loop.run(
            self._executor.make_keys(checked, self._make_caller(checked), self._nodes.identify_random)
        )
        files = self._nodes.list_files(checked)
        for where in files.countless:
            log.warning("%s: %s, so this is not taken over from an earlier run", where, TOO_MANY)
            settings = {**settings, where: uuid.uuid4().hex}
        return Identity(make_cell(checked, keys, settings), dict(facts), files.models, files.inputs)

    def describe(self, checked: CheckedGraph) -> dict[str, str]:
        """Return facts for a record, by dotted path, on this ComfyUI, its packs and the code of the graph's nodes."""
        sources = {node.class_type: self._catalog.find_code(node.class_type) for node in checked.graph.values()}
        codes = describe_codes(sources, self._catalog.list_foreign_packs(), self.comfyui.installation.path)
        return {**describe_comfyui(self.comfyui), **codes, "process.order": str(self._runs_started)}

    def digest_outputs(self, checked: CheckedGraph, folder: Path, seed: int) -> dict[str, list[str | None]]:
        """Run a graph anew, with its savers writing into `folder`; return the `digest_tensors` of each output, by node.

        Everything that was loaded is released first. The generators that all nodes share are seeded from `seed` before
        each node, so the digests of a node that draws without a seed of its own depend on `seed`. Raises NodeError.
        """
        self.clear()
        self.use_cache("all")
        self.set_output_folder(folder)
        with self.generators.changed(seed):
            self.run(checked)
        keys = self.make_keys(checked)
        retained = {name: outputs for name, key in keys.items() if (outputs := self._executor.cache.find(key))}
        return {name: [one.digest(slot) for slot in range(len(one.outputs))] for name, one in retained.items()}

    def remember_random(self, class_type: str) -> bool:
        """Remember that a class draws without a seed (see `RandomNodes`); return whether that is possible."""
        return self._nodes.remember_random(class_type)

    def run(
        self,
        graph: CheckedGraph | Mapping[str, Mapping[str, Any]],
        listen: Listener = lambda event: None,
        is_read_later: IsReadLater | None = None,
        *,
        targets: Sequence[str] | None = None,
        extra_data: Mapping[str, Any] | None = None,
        batch: SeedBatch | None = None,
    ) -> Execution:
        """Run a checked graph, or a prompt in ComfyUI's API format. The outputs are inference tensors.

        `listen` is called with each event. `targets` are the output nodes of a prompt to run, None means all.
        `extra_data` is what ComfyUI's /prompt takes under that name (`{"extra_pnginfo": {"workflow": ...}}`). The
        KSampler of `batch` runs for all its seeds, and the outputs of the other seeds are retained for later runs.

        The outputs are retained for the next run as `use_cache` says, or, given `is_read_later`, those that later runs
        will read. If GPU memory runs out, all models and outputs are released, and the run is tried once more.
        Raises PromptError before any node runs, NodeError for a node that fails, RunInterrupted.
        """
        checked = graph if isinstance(graph, CheckedGraph) else self.check_prompt(graph, targets)
        self._runs_started += 1
        batched = batch.node if batch else ""
        caller = self._make_caller(checked, extra_data, batched)
        caller.batch = batch if batch and tuple(batch.seeds) not in self._too_large else None
        try:
            return self._loop.run(self._run(checked, caller, listen, is_read_later))
        except NodeError as error:
            if not self._memory.ran_out(error):
                raise
            log.warning("%s\nAll models and outputs are let go, and the run is tried once more", error)
            if caller.batch:
                log.warning("%d seeds were sampled at once; now it is one", len(caller.batch.seeds))
                self._too_large.add(tuple(caller.batch.seeds))
        # Outside of the handler, because the traceback of the error refers to tensors.
        del caller
        self.clear()
        caller = self._make_caller(checked, extra_data, batched)
        return self._loop.run(self._run(checked, caller, listen, is_read_later))

    async def _run(
        self, checked: CheckedGraph, caller: NodeCaller, listen: Listener, is_read_later: IsReadLater | None
    ) -> Execution:
        import torch

        def hear(event: Event) -> None:
            listen(event)
            self.generators.hear(event)

        with (
            torch.inference_mode(),
            progress_heard(self.comfyui, caller, listen),
            expansions_named(caller),
            lora_keys_counted(caller),
            self._memory.around_run(caller),
        ):
            folder = self.comfyui.folder_paths.get_output_directory()
            return await self._executor.run(checked, caller, hear, is_read_later, folder)

    def add_models(self, folder: Path) -> None:
        """Search `folder`, laid out like ComfyUI's models/, after all other model folders. Idempotent."""
        if folder not in self._model_folders:
            add_model_folder(self.comfyui.folder_paths, folder, first=False)
            self._model_folders.add(folder)

    def set_output_folder(self, folder: Path) -> None:
        """Let ComfyUI's own savers (SaveImage, SaveLatent, ...) write into `folder`.

        They write again what they have written before, even if the folder is the same.
        """
        self.comfyui.folder_paths.set_output_directory(str(folder))
        self._executor.cache.drop_written()

    def close(self) -> None:
        """Release all outputs. Called at exit at the latest, because a later release would find torch half gone."""
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
