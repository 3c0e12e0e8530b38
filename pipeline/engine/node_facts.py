"""Find what a node's outputs depend on besides its inputs: the files that it names, its code, the environment."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from pipeline.base.cache_folder import cache_folder
from pipeline.base.file_state import FileState
from pipeline.engine.comfyui.catalog import Catalog
from pipeline.engine.comfyui.named_files import FileFinder
from pipeline.engine.comfyui.node_code import Code, read_code
from pipeline.engine.comfyui.start import ComfyUI
from pipeline.engine.random_nodes import RandomNodes
from pipeline.graph.check import CheckedGraph
from pipeline.graph.model import Node
from pipeline.graph.signature import Signature


@dataclass(frozen=True)
class GraphFiles:
    """The files that the constants of a graph name, by dotted path.

    countless: the constants that name a folder with too many files.
    """

    models: Mapping[str, FileState]
    inputs: Mapping[str, FileState]
    countless: tuple[str, ...]


class NodeFacts:
    """The files, code and environment variables that the outputs of one ComfyUI's nodes depend on."""

    def __init__(self, comfyui: ComfyUI, catalog: Catalog):
        self._root = comfyui.installation.path
        self._catalog = catalog
        self._files = FileFinder(comfyui.folder_paths)
        self._random = RandomNodes(cache_folder())

    def find_models(self, node: Node, signature: Signature) -> dict[str, str]:
        """Return the paths of the model files that the constants of a node name, by input."""
        return {key: str(path) for key, path in self._files.find(node, signature).models.items()}

    def list_files(self, checked: CheckedGraph) -> GraphFiles:
        """Return the files that the constants of all nodes name, as they are now. Raises OSError."""
        models: dict[str, FileState] = {}
        inputs: dict[str, FileState] = {}
        countless: list[str] = []
        for name, node in checked.graph.items():
            named = self._files.find(node, checked.signatures[name])
            models |= {f"{name}.{key}": FileState.of(path) for key, path in named.models.items()}
            inputs |= {f"{name}.{key}": FileState.of(path) for key, path in named.inputs.items()}
            countless += [f"{name}.{key}" for key in named.countless]
        return GraphFiles(models, inputs, tuple(countless))

    def identify(self, node: Node, signature: Signature) -> list[Any]:
        """Return what distinguishes a node from others with the same inputs within this process, as plain data.

        It has the states of files, environment variables, and the hash of code with data files. It is unique for a node
        that names too many files or whose class is known to draw without a seed.
        """
        named = self._files.find(node, signature)
        states = [astuple(FileState.of(path)) for path in (*named.models.values(), *named.inputs.values())]
        code = self._read_code(node.class_type)
        variables = [[name, os.environ.get(name)] for name in sorted(code.variables)] if code else []
        data = [code.sha256] if code and code.data else []
        unique_count = len(named.countless) + self._is_random(node.class_type, code)
        return [*states, *variables, *data, *(uuid.uuid4().hex for _ in range(unique_count))]

    def identify_random(self, node: Node, signature: Signature) -> str | None:
        """Return a unique text if the node's class is known to draw without a seed, else None."""
        return uuid.uuid4().hex if self._is_random(node.class_type, self._read_code(node.class_type)) else None

    def remember_random(self, class_type: str) -> bool:
        """Remember that a class draws without a seed; return whether that is possible.

        It is not possible for a class of ComfyUI's own. The outputs of such a class differ only in the last digits of
        the device's arithmetic, which `comfyui.reproducible` makes equal.
        """
        source, code = self._catalog.find_code(class_type), self._read_code(class_type)
        if source is None or code is None or (source.is_relative_to(self._root) and "custom_nodes" not in source.parts):
            return False
        self._random.add(class_type, code.sha256)
        return True

    def _is_random(self, class_type: str, code: Code | None) -> bool:
        return code is not None and self._random.knows(class_type, code.sha256)

    def _read_code(self, class_type: str) -> Code | None:
        source = self._catalog.find_code(class_type)
        return read_code(source, self._root) if source else None
