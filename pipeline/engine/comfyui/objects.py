"""The objects of node classes: made once for a node, they keep their state from run to run, as in ComfyUI's server."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, TypeAlias

NodeId: TypeAlias = tuple[str, str]
"""A node's name and its class_type."""


class NodeObjects:
    """One object for each node. State (a loaded LoRA file, say) would stay for ever, so `keep` says whose does."""

    def __init__(self) -> None:
        self._objects: dict[NodeId, Any] = {}
        self._folder = ""

    def get(self, name: str, class_type: str, cls: type) -> Any:
        """The node's object, made at the first call."""
        if (name, class_type) not in self._objects:
            self._objects[name, class_type] = cls()
        return self._objects[name, class_type]

    def keep(self, wanted: Container[NodeId], output_folder: str) -> None:
        """Let go of the objects of all other nodes.

        Savers ask for the output folder when they are made, so objects of output nodes go when it is another one.
        """
        stays_put, self._folder = self._folder == output_folder, output_folder
        self._objects = {
            node: one
            for node, one in self._objects.items()
            if node in wanted and (stays_put or not getattr(one, "OUTPUT_NODE", False))
        }

    def clear(self) -> None:
        """Let go of all objects."""
        self._objects.clear()
