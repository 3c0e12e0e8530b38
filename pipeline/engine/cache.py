"""The cache of node outputs, which are retained from run to run by content key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

import psutil

from pipeline.engine.cache_policy import CachePolicy
from pipeline.engine.comfyui.call import NodeOutputs
from pipeline.engine.seal import list_storages, make_seal

GB = 1024**3


@dataclass
class _Entry:
    """One entry of the cache.

    folder: where an output node wrote; None for any other node.
    storages: the memory of the tensors, arrays and containers in the outputs, see `list_storages`.
    seal: what `make_seal` returned when the outputs were sealed; None if they are not sealed.
    """

    outputs: NodeOutputs
    folder: str | None
    storages: frozenset[int]
    seal: object = None


class OutputCache:
    """Node outputs by content key, in the order of their last use.

    Example:
        cache.put(key, outputs)
        cache.find(key)  # the outputs; None after they were released
    """

    def __init__(self) -> None:
        self.policy = CachePolicy()
        self._entries: dict[str, _Entry] = {}
        self._storages: Counter[int] = Counter()  # how many entries share a storage
        self._readers: dict[int, set[str]] = {}  # the class_types that read a storage since it was last found intact

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def find(self, key: str, folder: str | None = None) -> NodeOutputs | None:
        """Return the outputs of `key`, or None.

        Given a `folder`, return only the outputs of an output node that wrote into it.
        """
        entry = self._entries.get(key)
        return entry.outputs if entry and (folder is None or entry.folder == folder) else None

    def put(self, key: str, outputs: NodeOutputs, folder: str | None = None) -> None:
        """Store outputs in place of earlier ones of `key`; `folder` is where an output node wrote."""
        self.drop(key)
        self._entries[key] = _Entry(outputs, folder, frozenset(list_storages(outputs.outputs)))
        self._storages.update(self._entries[key].storages)

    def is_shared(self, key: str) -> bool:
        """Return whether the outputs of `key` share memory with other outputs in the cache."""
        return any(self._storages[storage] > 1 for storage in self._entries[key].storages)

    def is_sealed(self, key: str) -> bool:
        """Return whether the outputs of `key` are sealed, because several nodes or runs may read them."""
        return self._entries[key].seal is not None

    def seal(self, key: str) -> None:
        """Seal the outputs of `key`, so that `find_changers` notices later changes. Does nothing if they are sealed."""
        entry = self._entries[key]
        if entry.seal is None:
            entry.seal = make_seal(entry.outputs.outputs)

    def find_changers(self, key: str, reader: str | None = None) -> set[str] | None:
        """Return the class_types of which one has changed the outputs of `key` since they were sealed.

        Return None if the outputs are intact or not sealed; `reader` is then noted as the class_type that reads them
        next.
        """
        entry = self._entries[key]
        if entry.seal is not None and entry.seal != make_seal(entry.outputs.outputs):
            return set[str]().union(*(self._readers.get(storage, ()) for storage in entry.storages))
        for storage in entry.storages:
            # Outputs that a node passes on as they are share memory with other outputs, whose readers may change it.
            before = self._readers.get(storage, set()) if self._storages[storage] > 1 else set()
            self._readers[storage] = before | ({reader} if reader else set())
        return None

    def drop_changed(self, key: str) -> None:
        """Release the outputs of `key` and all others that share memory with them."""
        changed = self._entries[key].storages
        self.drop(key)
        for other in [other for other, entry in self._entries.items() if entry.storages & changed]:
            self.drop(other)

    def drop_written(self) -> None:
        """Release the outputs of output nodes, so that these nodes write again."""
        for key in [key for key, entry in self._entries.items() if entry.folder is not None]:
            self.drop(key)

    def touch(self, key: str) -> None:
        """Mark the outputs of `key` as those that were used last."""
        if entry := self._entries.pop(key, None):
            self._entries[key] = entry

    def drop(self, key: str) -> None:
        """Release the outputs of `key`, if there are any."""
        if entry := self._entries.pop(key, None):
            self._storages.subtract(entry.storages)
            for storage in entry.storages:
                if self._storages[storage] <= 0:
                    del self._storages[storage]
                    self._readers.pop(storage, None)

    def retain(self, wanted: Callable[[str], bool]) -> None:
        """Release all outputs except those whose key is `wanted`."""
        for key in [key for key in self._entries if not wanted(key)]:
            self.drop(key)

    def trim(self, used: Container[str]) -> None:
        """Release the outputs that exceed the size of the policy `lru`, those used longest ago first.

        Outputs whose keys are in `used` are not released. Other policies release nothing here.
        """
        if self.policy.name == "lru":
            spare = [key for key in self._entries if key not in used]
            for key in spare[: max(0, len(self._entries) - self.policy.size)]:
                self.drop(key)

    def relieve(self, readers: Mapping[str, int]) -> None:
        """Release outputs while memory is short under the policy `all`, those used longest ago first.

        `readers` counts by key the nodes that still have to read the outputs; outputs with readers are not released.
        """
        if self.policy.name != "all" or _has_memory():
            return
        for key in [key for key in self._entries if not readers.get(key)]:
            self.drop(key)
            if _has_memory():
                break

    def clear(self) -> None:
        """Release all outputs."""
        self._entries.clear()
        self._storages.clear()
        self._readers.clear()


def _has_memory() -> bool:
    """Return whether enough main memory is available: a tenth of it, at least 2 and at most 10 GB.

    This is the default of ComfyUI's --cache-ram.
    """
    memory = psutil.virtual_memory()
    return memory.available >= min(10 * GB, max(2 * GB, memory.total * 0.1))
