"""The content of a graph's picture: for each node its name, its links, and the values that differ from the defaults."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Link, Node
from pipeline.graph.order import sort_nodes
from pipeline.graph.signature import Signature

LONGEST = 44  # the most characters that are shown of a value


@dataclass(frozen=True)
class Port:
    """An input or output that is linked. `source` is the node that an input reads and the index of its output."""

    name: str
    type: str
    source: tuple[str, int] | None = None


@dataclass(frozen=True)
class Card:
    """A node as it is shown. `values` are texts by input name; `outputs`, by index, are those that other nodes read."""

    name: str
    class_type: str
    inputs: tuple[Port, ...]
    outputs: dict[int, Port]
    values: dict[str, str]
    bypassed: bool = False
    cached: bool = False


def make_cards(checked: CheckedGraph, cached: Collection[str] = ()) -> dict[str, Card]:
    """Return a card for each node that runs or is bypassed, each after those that it reads.

    `cached` names the nodes that are marked as cached: their outputs come, or came, from the cache.
    """
    shown = checked.shown
    read_outputs = {(link.node, link.output) for node in shown.values() for _, link in node.links}
    cards = {}
    for name in sort_nodes(shown):
        node = shown[name]
        signature = checked.signatures[name]
        cards[name] = Card(
            name,
            node.class_type,
            tuple(_list_inputs(node, checked)),
            {
                index: Port(output.name, output.type)
                for index, output in enumerate(signature.outputs)
                if (name, index) in read_outputs
            },
            dict(_list_values(node, signature)),
            node.bypassed,
            name in cached,
        )
    return cards


def _list_inputs(node: Node, checked: CheckedGraph) -> list[Port]:
    ports = []
    for name, link in node.links:
        assert isinstance(link.output, int)  # resolved by the check
        kind = checked.signatures[link.node].outputs[link.output].type
        ports.append(Port(name, kind, (link.node, link.output)))
    return ports


def _list_values(node: Node, signature: Signature) -> list[tuple[str, str]]:
    """Return names and texts of the constants that differ from the node's own defaults, and of all file names."""
    values = []
    for name, value in node.inputs.items():
        spec = signature.inputs.get(name)
        choices = spec.choices if spec else None
        default = spec.options.get("default", choices[0] if choices else None) if spec else None
        # A file name is always shown: its default, the first file of the folder, is arbitrary.
        if not isinstance(value, Link) and (value != default or (spec is not None and spec.folder)):
            values.append((name, _shorten(value)))
    return values


def _shorten(value: object) -> str:
    text = " ".join(str(value).split()) or repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
