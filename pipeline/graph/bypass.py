"""Resolve the bypass of nodes: a bypassed node passes its inputs through by type, as in ComfyUI's bypass mode.

The rule is that of ExecutableNodeDTO in ComfyUI's front end. A link from output slot s, of type O, of a bypassed node
to an input of type T takes what feeds input slot k of the bypassed node. If T is a wildcard, k is s if such a slot
exists, else 0. For any other T, k is the first of these that exists:

1. slot s, if it is compatible with both O and T
2. the first slot whose type is exactly T
3. the first slot that is compatible with both O and T

If there is none, nothing passes through. If slot k is itself fed by a bypassed node, the rule is applied again, and T
is then the type of slot k.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.signature import InputSpec, Signature

WILDCARDS = ("*", "")


def resolve_bypass(graph: Graph, signatures: Mapping[str, Signature]) -> Graph:
    """Return the graph without its bypassed nodes; the nodes that read them read what they pass through.

    `graph` has links by output index. An input for which nothing passes through is absent in the result. A link to a
    bypassed node without a signature is left as it is.
    """
    nodes = {}
    for name, node in graph.items():
        if node.bypassed:
            continue
        inputs = {}
        for key, value in node.inputs.items():
            input_type = _input_type(signatures.get(name), key)
            source = _follow(graph, signatures, value, input_type) if isinstance(value, Link) else value
            if source is not None:
                inputs[key] = source
        nodes[name] = Node(name, node.class_type, inputs)
    return Graph(nodes)


def restore_bypassed(graph: Graph, resolved: Mapping[str, Node], signatures: Mapping[str, Signature]) -> Graph:
    """Return `resolved` as the GUI shows it, with the links and the bypassed nodes of `graph`.

    `resolve_bypass` of the result is `resolved` again. Nodes without a signature are left out.
    """
    shown = {name for name in graph if name in signatures}
    return Graph({name: _restore_node(graph[name], resolved.get(name), shown) for name in graph if name in shown})


def _restore_node(node: Node, resolved: Node | None, shown: Collection[str]) -> Node:
    links = {name: link for name, link in node.links if link.node in shown}
    if resolved is None:
        inputs = {name: one for name, one in node.inputs.items() if name in links or not isinstance(one, Link)}
        return Node(node.name, node.class_type, inputs, bypassed=True)
    # A constant that passed through a bypassed node stays a constant here, because the GUI passes only links through.
    inputs = {name: links.get(name, one) if isinstance(one, Link) else one for name, one in resolved.inputs.items()}
    return Node(node.name, node.class_type, {**links, **inputs})


def _follow(graph: Graph, signatures: Mapping[str, Signature], value: Any, wanted_type: str) -> Any:
    """Follow a link through bypassed nodes to the link or constant behind them; None if nothing passes through.

    Return the link to a bypassed node without a signature, because it is not known what that node passes through.
    """
    seen: set[str] = set()
    while isinstance(value, Link) and graph[value.node].bypassed:
        node, signature = graph[value.node], signatures.get(value.node)
        if signature is None:
            return value
        if node.name in seen or not isinstance(value.output, int):
            return None
        seen.add(node.name)
        slot = _pick_slot(signature, value.output, wanted_type)
        if slot is None:
            return None
        value, wanted_type = node.inputs.get(slot.name), slot.slot_type
    return value


def _pick_slot(signature: Signature, output: int, wanted_type: str) -> InputSpec | None:
    slots, output_type = signature.slots, signature.outputs[output].slot_type
    if not slots:
        return None
    same = slots[output] if output < len(slots) else None
    if wanted_type in WILDCARDS:
        return same or slots[0]
    compatible = [
        slot for slot in slots if _compatible(slot.slot_type, output_type) and _compatible(slot.slot_type, wanted_type)
    ]
    if same in compatible:
        return same
    exact = [slot for slot in slots if slot.slot_type == wanted_type]
    return next(iter(exact + compatible), None)


def _compatible(left: str, right: str) -> bool:
    lefts, rights = (set(kind.lower().split(",")) for kind in (left, right))
    return bool(lefts & rights) or not {*WILDCARDS}.isdisjoint(lefts | rights)


def _input_type(signature: Signature | None, name: str) -> str:
    spec = signature.inputs.get(name) if signature else None
    return spec.slot_type if spec else "*"
