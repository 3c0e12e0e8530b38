"""The outputs that one run works with: found in the cache by content key, released when no node will read them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from pipeline.engine.cache import OutputCache
from pipeline.engine.comfyui.call import NodeOutputs
from pipeline.engine.seal import copy_value
from pipeline.graph.model import Node
from pipeline.graph.signature import Signature


class OutputsChanged(Exception):
    """The outputs of the node `name` were changed in place, by a node of one of the class_types `changers`."""

    def __init__(self, name: str, key: str, changers: set[str]):
        super().__init__(name)
        self.name, self.key, self.changers = name, key, changers


class RunOutputs:
    """The outputs of a run's nodes, by name.

    keys: the content key of each node. readers: how many nodes still have to read the outputs of each key.
    `stays` says which keys are retained after their last reader in the run. The outputs of an output node are valid for
    this run only if it wrote into `folder`.
    """

    def __init__(
        self,
        cache: OutputCache,
        keys: dict[str, str],
        signatures: Mapping[str, Signature],
        stays: Callable[[str], bool],
        folder: str,
    ):
        self.keys = keys
        self.readers: Counter[str] = Counter()
        self._cache, self._signatures, self._stays, self._folder = cache, signatures, stays, folder

    @property
    def by_content(self) -> bool:
        """Whether nodes with the same content share their outputs; else a key is the name of a node."""
        return self._cache.policy.name != "none"

    def find(self, name: str) -> NodeOutputs | None:
        """Return the outputs of a node if they are in the cache and valid for this run, else None."""
        return self._cache.find(self.keys[name], self._folder_of(name))

    def get_own(self, name: str, reader: str) -> NodeOutputs:
        """Return the outputs of a node for an async reader, which continues while others run.

        They are a copy if other nodes may read and change them. Raises OutputsChanged as `get` does.
        """
        outputs = self.get(name, reader)
        if not self._cache.is_sealed(self.keys[name]):
            return outputs
        return dataclasses.replace(outputs, outputs=copy_value(outputs.outputs))

    def get(self, name: str, reader: str | None = None) -> NodeOutputs:
        """Return the outputs of a node, which must be in the cache, for a reader of that class_type.

        Raises OutputsChanged if another reader has changed them since they were made.
        """
        key = self.keys[name]
        self._cache.touch(key)
        if (changers := self._cache.find_changers(key, reader)) is not None:
            raise OutputsChanged(name, key, changers)
        outputs = self._cache.find(key)
        assert outputs is not None, name  # outputs with readers are not released
        return outputs

    def put(self, name: str, outputs: NodeOutputs) -> None:
        """Store the outputs of a node; they are sealed if they may be read more than once."""
        key = self.keys[name]
        self._cache.put(key, outputs, self._folder_of(name))
        if self.readers[key] > 1 or self._stays(key) or self._cache.is_shared(key):
            self._cache.seal(key)
        self._cache.relieve(self.readers)

    def hold(self, key: str, outputs: NodeOutputs) -> None:
        """Store outputs that belong to another run, if that run is still to come."""
        if self._stays(key):
            self._cache.put(key, outputs)
            self._cache.seal(key)

    def forget(self, names: Iterable[str]) -> None:
        """Release the outputs of nodes, even if nodes still have to read them."""
        for name in names:
            if name in self.keys:
                self._cache.drop(self.keys[name])

    def count(self, names: Iterable[str]) -> None:
        """Count one more reader for each name that has a key."""
        keys = [self.keys[name] for name in names if name in self.keys]
        self.readers.update(keys)
        for key in keys:
            if self.readers[key] > 1 and self._cache.find(key) is not None:
                self._cache.seal(key)  # an expansion adds readers of outputs that exist already

    def release(self, names: Iterable[str]) -> None:
        """Count one reader less for each name, and release outputs that have no reader left and do not stay."""
        for key in (self.keys[name] for name in names if name in self.keys):
            self.readers[key] -= 1
            self._drop_unread(key)

    def settle(self, name: str) -> None:
        """Release the outputs of a node if they have no reader at all and do not stay."""
        self._drop_unread(self.keys[name])

    def _drop_unread(self, key: str) -> None:
        if self.readers[key] <= 0:
            del self.readers[key]
            if not self._stays(key):
                self._cache.drop(key)

    def _folder_of(self, name: str) -> str | None:
        signature = self._signatures.get(name)
        return self._folder if signature and signature.is_output_node else None


def list_sources(node: Node) -> list[str]:
    """Return the nodes that a node is linked to, once for each link."""
    return [link.node for _, link in node.links]
