"""ComfyUI's API format: `{node id: {"class_type": ..., "inputs": {name: constant | [node id, output index]}}}`.

It is what ComfyUI's server takes at /prompt, what its savers embed in files and what its GUI loads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.reader import VALUE


def write_api_format(graph: Graph) -> dict[str, dict[str, Any]]:
    """Write a checked graph (links by index) as an API-format prompt; node names become ids and titles."""
    return {
        name: {
            "class_type": node.class_type,
            "inputs": {key: _write_value(value) for key, value in node.inputs.items()},
            "_meta": {"title": name},
        }
        for name, node in graph.items()
    }


def write_api_prompt(graph: Graph) -> dict[str, dict[str, Any]]:
    """The same as nodes are called with: literal lists and mappings are taken out of `__value__`, as by validation."""
    return unwrap_literals(write_api_format(graph))


def _write_value(value: Any) -> Any:
    if isinstance(value, Link):
        return [value.node, value.output]
    return {VALUE: value} if isinstance(value, list | dict) else value


def read_api_format(prompt: Mapping[str, Mapping[str, Any]], literals: Collection[tuple[str, str]] = ()) -> Graph:
    """Read an API-format prompt; ids become node names. `literals` names (node id, input) lists that are no links."""
    return Graph({name: read_api_node(name, info, literals) for name, info in prompt.items()})


def read_api_node(name: str, info: Mapping[str, Any], literals: Collection[tuple[str, str]] = ()) -> Node:
    """Read one node of an API-format prompt or of what a node expands to, where constants can be any object."""
    inputs = {
        key: Link(value[0], int(value[1])) if is_link(value) and (name, key) not in literals else value
        for key, value in info.get("inputs", {}).items()
    }
    return Node(name, info["class_type"], inputs)


def unwrap_literals(prompt: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same prompt with literal lists and mappings taken out of `__value__`, as by ComfyUI's validation."""
    return {
        name: {
            **info,
            "inputs": {
                key: one[VALUE] if isinstance(one, dict) and VALUE in one else one
                for key, one in info["inputs"].items()
            },
        }
        for name, info in prompt.items()
    }


def is_link(value: Any) -> bool:
    """ComfyUI's rule: a list (no tuple) of a node id (no number) and an output index is a link, always."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def find_literals(prompt: Mapping[str, Mapping[str, Any]]) -> set[tuple[str, str]]:
    """The (node id, input) of literal lists that would pass for links, were they not wrapped in `__value__`."""
    return {
        (name, key)
        for name, info in prompt.items()
        for key, value in info.get("inputs", {}).items()
        if isinstance(value, dict) and is_link(value.get(VALUE))
    }
