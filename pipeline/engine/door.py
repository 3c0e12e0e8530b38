"""What a run of a graph asks of ComfyUI and of the executor that began it."""

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
    """What a run asks of ComfyUI.

    read_signatures: those of nodes that an expansion brings; raises ConfigError for an unknown class_type.
    make_key: the content key of a node, given those of the nodes that it reads.
    offspring: where it is noted which node expanded to which; source_facts: what the sources of graphs gave.
    """

    caller: NodeCaller
    read_signatures: Callable[[Graph], Awaitable[Mapping[str, Signature]]]
    make_key: Callable[[Node, Mapping[str, str]], Awaitable[str]]
    offspring: Offspring
    source_facts: SourceFacts
