"""The data of a graph: nodes and the links between them. All of it is immutable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Link:
    """The value of an input that an output of another node feeds.

    `output` is the name of the output, its type if only one output has that type, or its index. After `check_graph` it
    is always the index, as in ComfyUI's API format.
    """

    node: str
    output: str | int

    def __str__(self) -> str:
        return f"[{self.node}, {self.output}]"


@dataclass(frozen=True)
class Node:
    """One ComfyUI node: its class_type and its inputs, each a `Link` or a constant.

    A constant is a value that JSON can hold. A list is a literal list (ComfyUI's `{__value__: [...]}`), never a link.
    An input that is not given is absent, not None.
    """

    name: str
    class_type: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    bypassed: bool = False

    @property
    def links(self) -> Iterator[tuple[str, Link]]:
        """The linked inputs, as (input name, link)."""
        return ((name, value) for name, value in self.inputs.items() if isinstance(value, Link))


class Graph(Mapping[str, Node]):
    """An immutable mapping of nodes by name, in the order in which they were declared.

    Example:
        loader = Node("loader", "UNETLoader", {"unet_name": "model.safetensors"})
        sampler = Node("sampler", "KSampler", {"model": Link("loader", "MODEL"), "steps": 4})
        graph = Graph({"loader": loader, "sampler": sampler})
    """

    def __init__(self, nodes: Mapping[str, Node] | None = None):
        self._nodes: Mapping[str, Node] = MappingProxyType(dict(nodes or {}))

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return f"Graph({', '.join(f'{node.name}: {node.class_type}' for node in self.values())})"
