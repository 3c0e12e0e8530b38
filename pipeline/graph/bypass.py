"""Bypass: a bypassed node passes its inputs through by type, by the rule of ComfyUI's own bypass mode.

The rule (ComfyUI front end, ExecutableNodeDTO): a link that asks a bypassed node for output slot s of type O, to
feed an input of type T, gets what feeds the node's input slot k, where
k = s if T is a wildcard and slot s exists, else 0;
k = s if slot s is compatible with O and with T; else the first slot of type exactly T;
else the first slot compatible with both; else there is none. Beyond a bypassed node, T is the type of its slot k.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.signature import InputSpec, Signature

WILDCARDS = ("*", "")


def resolve_bypass(graph: Graph, signatures: Mapping[str, Signature]) -> Graph:
    """Take the bypassed nodes out and let their readers read what they would have passed through.

    `graph` has links by output index. An input for which nothing passes through is absent in the result. Nodes
    without a signature are left as they are.
    """
    nodes = {}
    for name, node in graph.items():
        if node.bypassed:
            continue
        inputs = {}
        for key, value in node.inputs.items():
            kind = _input_type(signatures.get(name), key)
            found = _follow(graph, signatures, value, kind) if isinstance(value, Link) else value
            if found is not None:
                inputs[key] = found
        nodes[name] = Node(name, node.class_type, inputs)
    return Graph(nodes)


def restore_bypassed(graph: Graph, resolved: Mapping[str, Node], signatures: Mapping[str, Signature]) -> Graph:
    """`resolved` as the GUI shows it: with the links and the bypassed nodes of `graph`.

    Resolving the bypass of the result gives `resolved` again. Nodes without a signature are left out.
    """
    known = {name for name in graph if name in signatures}
    return Graph({name: _restore_node(graph[name], resolved.get(name), known) for name in graph if name in known})


def _restore_node(node: Node, resolved: Node | None, shown: Collection[str]) -> Node:
    links = {name: link for name, link in node.links if link.node in shown}
    if resolved is None:
        inputs = {name: one for name, one in node.inputs.items() if name in links or not isinstance(one, Link)}
        return Node(node.name, node.class_type, inputs, bypassed=True)
    # A constant that came through a bypass stays a constant: the GUI passes links only.
    inputs = {name: links.get(name, one) if isinstance(one, Link) else one for name, one in resolved.inputs.items()}
    return Node(node.name, node.class_type, {**links, **inputs})


def _follow(graph: Graph, signatures: Mapping[str, Signature], value: Any, wanted: str) -> Any:
    """Walk up through bypassed nodes to the link or constant behind them; None if a node passes nothing on.

    Stops at a bypassed node without a signature: what it would pass on is not known.
    """
    seen: set[str] = set()
    while isinstance(value, Link) and graph[value.node].bypassed:
        node, signature = graph[value.node], signatures.get(value.node)
        if signature is None:
            return value
        if node.name in seen or not isinstance(value.output, int):
            return None
        seen.add(node.name)
        slot = _pick_slot(signature, value.output, wanted)
        if slot is None:
            return None
        value, wanted = node.inputs.get(slot.name), slot.slot_type
    return value


def _pick_slot(signature: Signature, output: int, wanted: str) -> InputSpec | None:
    slots, given = signature.slots, signature.outputs[output].slot_type
    if not slots:
        return None
    same = slots[output] if output < len(slots) else None
    if wanted in WILDCARDS:
        return same or slots[0]
    fitting = [slot for slot in slots if _compatible(slot.slot_type, given) and _compatible(slot.slot_type, wanted)]
    if same in fitting:
        return same
    exact = [slot for slot in slots if slot.slot_type == wanted]
    return next(iter(exact + fitting), None)


def _compatible(left: str, right: str) -> bool:
    lefts, rights = (set(kind.lower().split(",")) for kind in (left, right))
    return bool(lefts & rights) or not {*WILDCARDS}.isdisjoint(lefts | rights)


def _input_type(signature: Signature | None, name: str) -> str:
    spec = signature.inputs.get(name) if signature else None
    return spec.slot_type if spec else "*"
