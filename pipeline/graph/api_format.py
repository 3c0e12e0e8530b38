"""Read and write ComfyUI's API format.

A prompt is `{node id: {"class_type": ..., "inputs": {name: constant | [node id, output index]}}}`. ComfyUI's server
takes it at /prompt, its savers embed it in files, and its GUI loads it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.graph.model import Graph, Link, Node
from pipeline.graph.reader import VALUE


def write_api_format(graph: Graph) -> dict[str, dict[str, Any]]:
    """Return a checked graph (links by index) as an API-format prompt; node names become ids and titles.

    A literal list or mapping is wrapped as `{"__value__": ...}`.

    Example:
        write_api_format(Graph({"sampler": Node("sampler", "KSampler", {"model": Link("loader", 0), "steps": 4})}))
        # {"sampler": {"class_type": "KSampler", "inputs": {"model": ["loader", 0], "steps": 4},
        #              "_meta": {"title": "sampler"}}}
    """
    return {
        name: {
            "class_type": node.class_type,
            "inputs": {key: _write_value(value) for key, value in node.inputs.items()},
            "_meta": {"title": name},
        }
        for name, node in graph.items()
    }


def write_api_prompt(graph: Graph) -> dict[str, dict[str, Any]]:
    """Return a checked graph as the prompt that nodes are called with.

    It is that of `write_api_format`, with literal lists and mappings taken out of `__value__`, as ComfyUI's validation
    does.
    """
    return unwrap_literals(write_api_format(graph))


def _write_value(value: Any) -> Any:
    if isinstance(value, Link):
        return [value.node, value.output]
    return {VALUE: value} if isinstance(value, list | dict) else value


def read_api_format(prompt: Mapping[str, Mapping[str, Any]], literals: Collection[tuple[str, str]] = ()) -> Graph:
    """Return the graph of an API-format prompt; ids become node names.

    `literals` holds (node id, input) of lists that look like links but are literal lists.
    """
    return Graph({name: read_api_node(name, info, literals) for name, info in prompt.items()})


def read_api_node(name: str, info: Mapping[str, Any], literals: Collection[tuple[str, str]] = ()) -> Node:
    """Return one node of an API-format prompt, or of the graph that a node expands to.

    In the latter a constant can be any object. `literals` is that of `read_api_format`.
    """
    inputs = {
        key: Link(value[0], int(value[1])) if is_link(value) and (name, key) not in literals else value
        for key, value in info.get("inputs", {}).items()
    }
    return Node(name, info["class_type"], inputs)


def unwrap_literals(prompt: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the prompt with literal lists and mappings taken out of `__value__`, as ComfyUI's validation does."""
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
    """Return whether ComfyUI takes a value for a link.

    The rule is that of ComfyUI's `is_link` (comfy_execution/graph_utils.py): a list, not a tuple, of a node id, which
    is a string, and an output index is always a link.
    """
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def find_literals(prompt: Mapping[str, Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Return (node id, input) of the literal lists that would look like links without their `__value__`."""
    return {
        (name, key)
        for name, info in prompt.items()
        for key, value in info.get("inputs", {}).items()
        if isinstance(value, dict) and is_link(value.get(VALUE))
    }
