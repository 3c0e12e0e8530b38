"""Run one graph, which can grow meanwhile: nodes expand into others and ask for lazy inputs.

`NodeCaller` knows what a node is and how it is called; `Schedule` knows which node is next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.base.events import Listener, NodeFinished, NodeStarted
from pipeline.engine.comfyui.call import Call, NodeOutputs
from pipeline.engine.comfyui.returns import Answer, is_blocked
from pipeline.engine.door import Door
from pipeline.engine.expansion import find_result_links, merge_results
from pipeline.engine.node_errors import ExecutionBlocked, explain_error
from pipeline.engine.run_outputs import OutputsChanged, RunOutputs, list_sources
from pipeline.engine.schedule import Schedule
from pipeline.errors import CycleError, NodeError, RunInterrupted
from pipeline.graph.api_format import read_api_node
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.order import find_dependents, find_needed, sort_nodes
from pipeline.graph.signature import Signature

POLL_SECONDS = 0.1  # how often a run that waits for async nodes checks whether it was interrupted


class GraphRun:
    """The state of one run. Call `begin`, then await `run`.

    executed: the nodes that have started. served: the nodes whose outputs were in the cache when their turn came.
    ui: what nodes showed, by node.
    """

    def __init__(
        self, checked: CheckedGraph, signatures: dict[str, Signature], outputs: RunOutputs, door: Door, listen: Listener
    ):
        """`signatures` has those of `checked` and grows with the graph."""
        self.executed: dict[str, None] = {}  # an ordered set
        self.served: set[str] = set()
        self.ui: dict[str, Mapping[str, Any]] = {}
        self._outputs, self._signatures, self._door, self._listen = outputs, signatures, door, listen
        self._caller = door.caller
        self._nodes: dict[str, Node] = dict(checked.graph)
        self._targets = checked.targets
        self._retains_targets = checked.prompt is None  # a prompt's targets are wanted for what they show
        self._schedule = Schedule()
        self._place = {name: index for index, name in enumerate(checked.order)}
        self._source_names: dict[str, set[str]] = {}  # the nodes whose outputs a node is given
        self._answers: dict[str, Answer] = {}  # of nodes that wait for the nodes that they expanded to
        self._pending: dict[asyncio.Task[None], tuple[str, Call, float]] = {}
        self._seconds: dict[str, float] = {}
        self._blocked: NodeError | None = None
        self._blockers: list[str] = []  # nodes that got a blocker with a message

    def begin(self) -> None:
        """Schedule the targets that are not in the cache, and the nodes that they need."""
        if self._retains_targets:
            self._outputs.count(self._targets)
        for name in self._targets:
            self._show(name)
        self._require(self._targets)

    def is_scheduled(self, name: str) -> bool:
        """Return whether a node still has to run."""
        return name in self._schedule

    async def run(self) -> None:
        """Run until all scheduled nodes have finished. Raises NodeError.

        A blocker with a message is an error too. It stops only the nodes that read it, so it is raised at the end.
        """
        try:
            await self._run_all()
        finally:
            if self._blocked:  # outputs that depend on a blocker are no cache hits, so that a later run fails too
                self._outputs.forget(find_dependents(self._nodes, self._blockers))
        if self._blocked:
            raise self._blocked
        for name, signature in self._signatures.items():
            if signature.shows_when_cached and name in self._outputs.keys and name not in self.ui:
                self._show(name)

    async def _run_all(self) -> None:
        while True:
            name = self._schedule.pop()
            if name is not None:
                await self._try(name, self._advance(name))
                if self._pending:
                    await asyncio.sleep(0)  # let async nodes continue meanwhile
            elif self._pending:
                await self._wait()
            elif self._schedule:
                raise self._explain_circle(self._schedule.find_circle())
            else:
                return

    async def cancel(self) -> None:
        """Cancel the async nodes that have not finished."""
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)

    async def _try(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except (NodeError, OutputsChanged):
            raise
        except Exception as error:
            raise self._explain(name, error) from error
        except BaseException as error:
            if type(error).__name__ != "InterruptProcessingException":
                raise
            raise self._explain(name, error, RunInterrupted) from error

    async def _wait(self) -> None:
        done, _ = await asyncio.wait(self._pending, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            name, _, _ = next(iter(self._pending.values()))
            await self._try(name, self._caller.stop_if_interrupted())
        for task in done:
            name, call, started = self._pending.pop(task)
            self._add_seconds(name, started)
            await self._try(name, self._finish(name, call))

    async def _advance(self, name: str) -> None:
        """Process a node that is ready: it may ask for lazy inputs, wait, expand, or finish."""
        if name in self._answers:
            return self._resolve(name)
        if self._outputs.find(name) is not None:  # another node with the same key has finished meanwhile
            self.served.add(name)
            self._show(name)
            return self._leave(name)
        if twins := self._find_pending(self._outputs.keys[name]):
            return self._schedule.wait(name, twins)
        node, started = self._nodes[name], time.perf_counter()
        if name not in self.executed:
            self.executed[name] = None
            self._listen(NodeStarted(name, node.class_type))
        sources = self._sources(name)
        if self._ask(name, await self._caller.find_wanted(node, sources)):
            self._add_seconds(name, started)
            return None
        self._door.source_facts.see(self._nodes, self._signatures, sources, self._outputs.keys)
        call = await self._caller.call(node, sources, self._outputs.keys[name])
        if call.blocked:
            self._blockers.append(name)
        if call.blocked and not self._blocked:
            self._blocked = self._explain(name, ExecutionBlocked(f"Execution Blocked: {call.blocked[0]}"))
        if call.tasks:
            self._pending[asyncio.create_task(call.wait())] = (name, call, started)
            return None
        self._add_seconds(name, started)
        return await self._finish(name, call)

    def _find_pending(self, key: str) -> list[str]:
        """Return the async node with that key that has not finished, in a list that is empty if there is none."""
        return [name for name, _, _ in self._pending.values() if self._outputs.keys[name] == key]

    def _ask(self, name: str, requested: Iterable[str]) -> bool:
        """Add the lazy inputs that a node asks for to those it is given; return whether it must be asked again."""
        node, source_names = self._nodes[name], self._source_names[name]
        links = {one: node.inputs.get(one) for one in requested}
        unlinked = [one for one, link in links.items() if not isinstance(link, Link)]
        if unlinked:
            raise ValueError(f"asks for the input {unlinked[0]!r}, which is not linked to a node")
        self._check_given([one for one in links.values() if isinstance(one, Link) and one.node in source_names], name)
        new = {link.node for link in links.values() if isinstance(link, Link)} - source_names
        if new:
            source_names |= new
            self._wait_for(name, new)
        return bool(new)

    async def _finish(self, name: str, call: Call) -> None:
        answer = call.read(self._caller.execution)
        self._caller.mark_in_use(answer.outputs)
        if answer.parts:
            return await self._expand(name, answer)
        outputs = answer.outputs
        batch = None
        if self._caller.batched == name:
            batch = self._caller.batch
            self._door.source_facts.note_batch(self._outputs.keys[name], batch)
        if batch and not any(is_blocked(one) for slot in outputs for one in slot):  # if blocked, each seed fails alone
            parts = batch.split(outputs)
            outputs = parts.pop(self._outputs.keys[name])
            for key, part in parts.items():
                self._outputs.hold(key, NodeOutputs(part, answer.ui, call.latent_format))
        return self._store(name, NodeOutputs(outputs, answer.ui, call.latent_format))

    def _store(self, name: str, outputs: NodeOutputs) -> None:
        if outputs.ui:
            self.ui[name] = outputs.ui
        self._outputs.put(name, outputs)
        self._listen(NodeFinished(name, self._nodes[name].class_type, self._seconds.pop(name, 0.0)))
        self._leave(name)
        self._outputs.settle(name)

    async def _expand(self, name: str, answer: Answer) -> None:
        """Add the nodes that a node expands to, and let it wait for those that its results are taken from."""
        infos = {child: info for part in answer.parts for child, info in (part.nodes or {}).items()}
        for child, info in infos.items():
            self._caller.add_node(child, info, name)
            self._place.setdefault(child, len(self._place))
            self._outputs.keys.pop(child, None)
        new = Graph({child: read_api_node(child, info) for child, info in infos.items()})
        self._nodes.update(new)
        self._signatures.update(await self._door.read_signatures(new))
        await self._make_keys(new)
        children = {(child, node.class_type): self._outputs.keys[child] for child, node in new.items()}
        self._door.offspring.record((name, self._nodes[name].class_type), children)
        self._answers[name] = answer
        links = find_result_links(answer.parts)
        self._check_links(links)
        sources = [link.node for link in links]
        await self._make_keys(sources)
        self._outputs.count(sources)
        shown = [child for child in new if self._signatures[child].is_output_node]
        for child in shown:
            self._show(child)
        self._require(shown)
        self._wait_for(name, set(sources))

    def _resolve(self, name: str) -> None:
        """Take the results of a node from the nodes that it expanded to, which have finished."""
        answer = self._answers.pop(name)
        fetched: list[NodeOutputs] = []

        def fetch(link: Link) -> list[Any]:
            fetched.append(self._outputs.get(link.node, self._nodes[name].class_type))
            self._check_given([link], name)
            return fetched[-1].outputs[int(link.output)]

        outputs = merge_results(answer.parts, [output.is_list for output in self._signatures[name].outputs], fetch)
        formats = (one.latent_format for one in fetched if one.latent_format is not None)
        self._outputs.release(link.node for link in find_result_links(answer.parts))
        self._store(name, NodeOutputs(outputs, answer.ui, next(formats, None)))

    async def _make_keys(self, names: Iterable[str]) -> None:
        """Make the keys of nodes that were added during the run, and of all nodes that they read."""
        keys = self._outputs.keys
        missing = Graph({name: self._nodes[name] for name in find_needed(self._nodes, names, keys)})
        try:
            order: Sequence[str] = sort_nodes(missing)
        except CycleError:  # it matters only if each node of the cycle really waits for the next
            order = tuple(missing)
        for name in order:
            keys[name] = await self._door.make_key(missing[name], keys) if self._outputs.by_content else name

    def _require(self, names: Iterable[str]) -> None:
        """Schedule nodes that are not in the cache and the nodes that they need; lazy inputs follow when asked for."""
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in self._schedule or self._outputs.find(name) is not None:
                continue
            node, signature = self._nodes[name], self._signatures[name]
            source_names = {link.node for key, link in node.links if key not in signature.lazy}
            self._check_links(link for _, link in node.links if link.node in source_names)
            self._source_names[name] = source_names
            self._outputs.count(list_sources(node))
            unknown = self._list_unknown(source_names)
            urgent = signature.is_async or signature.is_output_node
            self._schedule.add(name, self._place.setdefault(name, len(self._place)), urgent, unknown)
            waiting += unknown

    def _wait_for(self, name: str, sources: Iterable[str]) -> None:
        sources = list(sources)
        self._require(sources)
        self._schedule.wait(name, self._list_unknown(sources))

    def _list_unknown(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._outputs.find(name) is None]

    def _check_links(self, links: Iterable[Link]) -> None:
        for link in links:
            if link.node not in self._nodes:
                raise ValueError(f"is linked to {link}, but there is no node {link.node!r}")

    def _sources(self, name: str) -> dict[str, NodeOutputs]:
        node, signature = self._nodes[name], self._signatures[name]
        get = self._outputs.get_own if signature.is_async else self._outputs.get
        sources = {source: get(source, node.class_type) for source in self._source_names[name]}
        self._check_given([one for key, one in node.links if one.node in sources and key not in signature.lazy], name)
        return sources

    def _check_given(self, links: Iterable[Link], reader: str) -> None:
        """Raise NodeError if `reader` reads an output that a node declared but did not return; ComfyUI passes None."""
        for link in links:
            found, declared = self._outputs.find(link.node), len(self._signatures[link.node].outputs)
            if found is not None and int(link.output) >= len(found.outputs):
                message = f"returned {len(found.outputs)} of its {declared} outputs, but {reader} reads {link}"
                raise self._explain(link.node, ValueError(message))

    def _leave(self, name: str) -> None:
        """Take a finished node out of the schedule and release the outputs that it read."""
        self._schedule.finish(name)
        self._outputs.release(list_sources(self._nodes[name]))

    def _add_seconds(self, name: str, started: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

    def _show(self, name: str) -> None:
        outputs = self._outputs.find(name)
        if outputs is not None and outputs.ui:
            self.ui[name] = outputs.ui

    def _explain_circle(self, circle: list[str]) -> NodeError:
        expanded = next((name for name in circle if self._caller.find_submitted(name) != name), circle[0])
        return self._explain(expanded, CycleError(circle))

    def _explain(self, name: str, error: BaseException, kind: type[NodeError] = NodeError) -> NodeError:
        found = {source: self._outputs.find(source) for source in self._source_names.get(name, ())}
        sources = {source: outputs for source, outputs in found.items() if outputs is not None}
        submitted = self._nodes[self._caller.find_submitted(name)]
        return explain_error(self._nodes[name], submitted, sources, error, kind)
