"""The objects of node classes, which retain their state from run to run, as in ComfyUI's server."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, TypeAlias

NodeId: TypeAlias = tuple[str, str]
"""A node's name and its class_type."""


class NodeObjects:
    """One object for each node. `keep` limits them to the nodes in use, because they may store large files (a LoRA)."""

    def __init__(self) -> None:
        self._objects: dict[NodeId, Any] = {}
        self._folder = ""

    def get(self, name: str, class_type: str, cls: type) -> Any:
        """Return the node's object, which is made at the first call."""
        if (name, class_type) not in self._objects:
            self._objects[name, class_type] = cls()
        return self._objects[name, class_type]

    def keep(self, wanted: Container[NodeId], output_folder: str) -> None:
        """Release the objects of all nodes that are not in `wanted`.

        If `output_folder` is another one than before, the objects of output nodes are released too, because savers read
        the folder when they are made.
        """
        is_same_folder, self._folder = self._folder == output_folder, output_folder
        self._objects = {
            node: one
            for node, one in self._objects.items()
            if node in wanted and (is_same_folder or not getattr(one, "OUTPUT_NODE", False))
        }

    def clear(self) -> None:
        """Release all objects."""
        self._objects.clear()
