"""ComfyUI's API format: `{node id: {"class_type": ..., "inputs": {name: constant | [node id, output index]}}}`.

It is what ComfyUI's server takes at /prompt, what its savers embed in files and what its GUI loads.
"""

from __future__ import annotations

from typing import Any

from pipeline.graph.model import Graph, Link
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


def _write_value(value: Any) -> Any:
    if isinstance(value, Link):
        return [value.node, value.output]
    return {VALUE: value} if isinstance(value, list | dict) else value
