"""Run checked graphs one after the other: each node once, in order, unless it is a cache hit.

The executor knows order, cache, release and events. `NodeCaller` knows what a node is and how it is called.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pipeline.base.events import Listener, RunStarted
from pipeline.engine.cache import OutputCache
from pipeline.engine.comfyui.call import NodeCaller, NodeOutputs
from pipeline.engine.comfyui.objects import NodeObjects
from pipeline.engine.comfyui.seed_batch import SeedBatch
from pipeline.engine.door import Door
from pipeline.engine.expansion import Offspring
from pipeline.engine.graph_run import GraphRun
from pipeline.engine.keys import Identify, make_key
from pipeline.engine.run_outputs import OutputsChanged, RunOutputs
from pipeline.engine.source_facts import SourceFacts
from pipeline.errors import CycleError, NodeError
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Graph, Node
from pipeline.graph.order import sort_nodes
from pipeline.graph.signature import Signature

log = logging.getLogger(__name__)

MOST_RESTARTS = 2  # of a run whose outputs are changed, not counting one for each class_type that is found to do it

IsReadLater: TypeAlias = Callable[[str], bool]
"""Returns whether a later run will read the outputs of a content key."""


@dataclass(frozen=True)
class Execution:
    """The result of one execution of a graph.

    outputs: the outputs of the targets; for a prompt in API format, only those that the cache still has.
    executed: the nodes that started, including the nodes of expansions under the names that they got there.
    cached: the nodes of the graph that were cache hits. Other nodes that were not needed because of them are neither
    executed nor cached.
    ui: what nodes showed, by node, as in ComfyUI's history; also for targets that were cache hits.
    node_errors: what was wrong with outputs of a prompt that were dropped, in ComfyUI's form.
    batch: the seeds that a KSampler was called for at once, in this run or in the run that stored its outputs.
    facts: for the sources of the graph that were read, in this run or earlier, the content of conditionings and latents
    (`tensor.positive`) and the dtypes of models (`dtype.unet`); for nodes that loaded LoRAs, the keys that do not fit
    the model (`lora_unfit.lora`: `12 of 864 keys of style.safetensors`).
    """

    outputs: Mapping[str, NodeOutputs]
    executed: tuple[str, ...]
    cached: tuple[str, ...]
    seconds: float
    ui: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    node_errors: Mapping[str, Any] = field(default_factory=dict)
    batch: SeedBatch | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


class Executor:
    """The executor of one graph after the other, which retains outputs from one run to the next by content key.

    `cache.policy` says how long. The default is ComfyUI's classic cache: the outputs of the last graph are retained,
    and those that the next graph does not use are released before its first node runs, so that two checkpoints are
    never in memory at once.
    """

    def __init__(self, identify: Identify, read_signatures: Callable[[Graph], Awaitable[Mapping[str, Signature]]]):
        """`identify` returns what distinguishes nodes with the same inputs within this process."""
        self._identify = identify
        self._read_signatures = read_signatures
        self._offspring = Offspring()
        self._source_facts = SourceFacts()
        self._changers: set[str] = set()  # class_types that change their inputs in place
        self.cache = OutputCache()

    async def run(
        self,
        checked: CheckedGraph,
        caller: NodeCaller,
        listen: Listener,
        is_read_later: IsReadLater | None = None,
        output_folder: str = "",
    ) -> Execution:
        """Run the nodes of `checked.order` that the targets need. Raises NodeError for a node that fails.

        Given `is_read_later`, only outputs that later runs will read are retained, and all others are released as soon
        as no node of this run has to read them. The policies `none`, `all` and `lru` apply instead where they are set.
        An output node is a cache hit only if it wrote into `output_folder` before.

        A node that changes its inputs in place gets copies from then on, and the run starts again with the outputs that
        are still intact. So each node reads outputs as they were made.
        """
        caller.changers = self._changers
        restarts = 0
        while restarts < MOST_RESTARTS:
            known_changers = len(self._changers)
            try:
                return await self._run_once(checked, caller, listen, is_read_later, output_folder)
            except OutputsChanged as found:
                changed = found
                self._note_change(checked, changed, caller)
                restarts += len(self._changers) == known_changers
        node = checked.graph.get(changed.name)
        message = "its outputs are changed after they were made, each time anew. Leave out the node that does it"
        raise NodeError(changed.name, node.class_type if node else "", {}, message)

    def _note_change(self, checked: CheckedGraph, changed: OutputsChanged, caller: NodeCaller) -> None:
        new = changed.changers - self._changers
        suspects = []
        for class_type in sorted(new):
            named = [name for name, node in checked.graph.items() if node.class_type == class_type]
            suspects.append(f"{' or '.join(named)} ({class_type})" if named else class_type)
        if len(suspects) == 1:
            log.warning("%s changes the outputs of %s in place. It gets copies from now on", suspects[0], changed.name)
        elif suspects:
            text = ", ".join(suspects)
            log.warning("one of %s changes the outputs of %s in place. They get copies from now on", text, changed.name)
        else:
            log.warning("the outputs of %s were changed after they were made, so it runs again", changed.name)
        self._changers |= new
        self.cache.drop_written()  # the record of a run that starts again has none of the files written before
        caller.objects.clear()  # a node may have stored the changed outputs and would return them again

    async def _run_once(
        self,
        checked: CheckedGraph,
        caller: NodeCaller,
        listen: Listener,
        is_read_later: IsReadLater | None,
        output_folder: str,
    ) -> Execution:
        """Run the graph. Raises OutputsChanged when a node is found to have changed the outputs of another one."""
        started = time.perf_counter()
        graph = [(name, node.class_type) for name, node in checked.graph.items()]
        children = self._offspring.keep(graph)
        caller.objects.keep({*graph, *children}, output_folder)
        keeps_none = self.cache.policy.name == "none"
        keys = {name: name for name in checked.order} if keeps_none else await self.make_keys(checked, caller)
        signatures = dict(checked.signatures)
        facts = SourceFacts() if keeps_none else self._source_facts
        run_outputs = RunOutputs(self.cache, keys, signatures, self._choose_retained(is_read_later), output_folder)
        run = GraphRun(checked, signatures, run_outputs, self._make_door(caller, signatures, facts), listen)
        cache_hits = [name for name in checked.order if run_outputs.find(name) is not None]
        run.begin()
        other_keys = {} if keeps_none else await self._make_other_keys(checked, caller, keys)
        self._release_unused(run_outputs, {*keys.values(), *other_keys.values(), *children.values()}, is_read_later)
        listen(RunStarted(checked.order, tuple(name for name in cache_hits if not run.is_scheduled(name))))

        def list_cached() -> tuple[str, ...]:
            hits = {*cache_hits, *run.served}
            return tuple(name for name in checked.order if name in hits and name not in run.executed)

        starts_again = False
        try:
            await run.run()
            outputs = {name: run_outputs.get(name) for name in checked.targets if run_outputs.find(name)}
        except OutputsChanged as changed:
            starts_again = True  # so the other outputs are retained
            self.cache.drop_changed(changed.key)
            await run.cancel()
            raise
        except NodeError as error:
            error.executed, error.cached = tuple(run.executed), list_cached()
            raise
        finally:
            for name, counted in caller.lora_keys.items():
                facts.note(keys[name], "lora_unfit", counted.describe() if counted.unfit else "")
            if not starts_again:
                self._end(run_outputs, is_read_later, caller.objects)
        return Execution(
            outputs=outputs,
            executed=tuple(run.executed),
            cached=list_cached(),
            seconds=time.perf_counter() - started,
            ui=run.ui,
            node_errors=checked.node_errors,
            batch=facts.find_batch(keys[caller.batched]) if caller.batched in keys else None,
            facts=facts.list_facts(keys),
        )

    def clear(self) -> None:
        """Release all outputs."""
        self.cache.clear()
        self._offspring.clear()

    async def make_keys(
        self, checked: CheckedGraph, caller: NodeCaller, identify: Identify | None = None
    ) -> dict[str, str]:
        """Return the content key of each node; `identify` replaces that of the executor."""
        keys: dict[str, str] = {}
        for name in checked.order:
            keys[name] = await self._make_key(checked.graph[name], checked.signatures[name], keys, caller, identify)
        return keys

    async def _make_other_keys(
        self, checked: CheckedGraph, caller: NodeCaller, keys: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the keys of all nodes of a prompt, also of those that the targets do not need.

        As in ComfyUI, the outputs of these nodes are retained for a run with other targets. Return an empty mapping if
        there are no such nodes, or if there is a cycle.
        """
        if checked.prompt is None or len(checked.graph) == len(keys):
            return {}
        try:
            order = sort_nodes(checked.graph)
        except CycleError:
            return {}
        found = dict(keys)
        for name in order:
            if name not in found and name in checked.signatures:
                found[name] = await self._make_key(checked.graph[name], checked.signatures[name], found, caller)
        return found

    async def _make_key(
        self,
        node: Node,
        signature: Signature,
        keys: Mapping[str, str],
        caller: NodeCaller,
        identify: Identify | None = None,
    ) -> str:
        # A linked node may be missing or part of a cycle. It gets a unique key, which equals no other.
        upstream = {link.node: keys.get(link.node) or uuid.uuid4().hex for _, link in node.links}
        identity = (identify or self._identify)(node, signature)
        if node.name == caller.batched:  # in the last digits, its results differ from those of a seed sampled alone
            identity = ["batched", identity]
        return make_key(node, signature, upstream, await caller.fingerprint(node), identity)

    def _make_door(self, caller: NodeCaller, signatures: Mapping[str, Signature], facts: SourceFacts) -> Door:
        async def make_key_of(node: Node, keys: Mapping[str, str]) -> str:
            return await self._make_key(node, signatures[node.name], keys, caller)

        return Door(caller, self._read_signatures, make_key_of, self._offspring, facts)

    def _choose_retained(self, is_read_later: IsReadLater | None) -> IsReadLater:
        """Return the function that says whether outputs are retained after their last reader in the run."""
        if self.cache.policy.name == "none":
            return lambda key: False
        return (lambda key: True) if self.cache.policy.keeps_others or not is_read_later else is_read_later

    def _release_unused(self, run_outputs: RunOutputs, used: set[str], is_read_later: IsReadLater | None) -> None:
        """Release, before the first node runs, what neither this run nor, as far as is known, a later one reads."""
        if self.cache.policy.keeps_others:
            return
        if is_read_later:
            self.cache.retain(lambda key: is_read_later(key) or run_outputs.readers[key] > 0)
        else:
            self.cache.retain(used.__contains__)

    def _end(self, run_outputs: RunOutputs, is_read_later: IsReadLater | None, objects: NodeObjects) -> None:
        if self.cache.policy.name == "none":
            self.cache.clear()
            objects.clear()  # as with ComfyUI's --cache-none, nodes retain no state
        elif is_read_later and not self.cache.policy.keeps_others:
            self.cache.retain(is_read_later)
        else:
            self.cache.trim({*run_outputs.keys.values()})
