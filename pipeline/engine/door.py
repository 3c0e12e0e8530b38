"""What the run of a graph needs from ComfyUI and from the executor that started it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pipeline.engine.comfyui.call import NodeCaller
from pipeline.engine.expansion import Offspring
from pipeline.engine.source_facts import SourceFacts
from pipeline.graph.model import Graph, Node
from pipeline.graph.signature import Signature


@dataclass(frozen=True)
class Door:
    """What a run needs from ComfyUI and from its executor.

    caller: calls the nodes of the run.
    read_signatures: returns the signatures of nodes that an expansion adds; raises ConfigError for unknown class_types.
    make_key: returns the content key of a node, given the keys of the nodes that it reads.
    offspring: records which node expanded to which.
    source_facts: records facts on the sources of graphs.
    """

    caller: NodeCaller
    read_signatures: Callable[[Graph], Awaitable[Mapping[str, Signature]]]
    make_key: Callable[[Node, Mapping[str, str]], Awaitable[str]]
    offspring: Offspring
    source_facts: SourceFacts
