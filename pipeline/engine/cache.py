"""Outputs kept from run to run, by content."""

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
class _Held:
    """Outputs, the folder that an output node wrote into, and the memory of their tensors, arrays and containers.

    seal: what they were when they were sealed, None if they are not.
    """

    outputs: NodeOutputs
    folder: str | None
    storages: frozenset[int]
    seal: object = None


class OutputCache:
    """Outputs by content key; what was used last comes last."""

    def __init__(self) -> None:
        self.policy = CachePolicy()
        self._held: dict[str, _Held] = {}
        self._storages: Counter[int] = Counter()  # how many of the held outputs have a memory
        self._readers: dict[int, set[str]] = {}  # the class_types that were given a memory since it was found intact

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def find(self, key: str, folder: str | None = None) -> NodeOutputs | None:
        """The outputs of `key`, if they are held. Those of an output node must have been written into `folder`."""
        held = self._held.get(key)
        return held.outputs if held and (folder is None or held.folder == folder) else None

    def put(self, key: str, outputs: NodeOutputs, folder: str | None = None) -> None:
        """Hold outputs; `folder` is where an output node wrote."""
        self.drop(key)
        self._held[key] = _Held(outputs, folder, frozenset(list_storages(outputs.outputs)))
        self._storages.update(self._held[key].storages)

    def is_shared(self, key: str) -> bool:
        """Whether tensors of the outputs of `key` have their memory in common with other held outputs."""
        return any(self._storages[one] > 1 for one in self._held[key].storages)

    def is_sealed(self, key: str) -> bool:
        """Whether the outputs of `key` are sealed: others may read them besides."""
        return self._held[key].seal is not None

    def seal(self, key: str) -> None:
        """Note what the outputs of `key` are, so that `find_changers` can tell whether they were changed since."""
        held = self._held[key]
        if held.seal is None:
            held.seal = make_seal(held.outputs.outputs)

    def find_changers(self, key: str, reader: str | None = None) -> set[str] | None:
        """Return the class_types of which one has changed the outputs of `key` since they were sealed.

        None if they are intact, or were not sealed. `reader` is the class_type that reads them next.
        """
        held = self._held[key]
        if held.seal is not None and held.seal != make_seal(held.outputs.outputs):
            return set[str]().union(*(self._readers.get(one, ()) for one in held.storages))
        for one in held.storages:
            # What is handed on as it is has the memory of other outputs, whose readers may change it too.
            before = self._readers.get(one, set()) if self._storages[one] > 1 else set()
            self._readers[one] = before | ({reader} if reader else set())
        return None

    def drop_changed(self, key: str) -> None:
        """Release the outputs of `key`, and all others whose tensors have their memory in common with them."""
        changed = self._held[key].storages
        self.drop(key)
        for other in [other for other, held in self._held.items() if held.storages & changed]:
            self.drop(other)

    def drop_written(self) -> None:
        """Release the outputs of output nodes, so that they write again."""
        for key in [key for key, held in self._held.items() if held.folder is not None]:
            self.drop(key)

    def touch(self, key: str) -> None:
        """Note that outputs are used."""
        if held := self._held.pop(key, None):
            self._held[key] = held

    def drop(self, key: str) -> None:
        """Let go of the outputs of `key`, if they are held."""
        if held := self._held.pop(key, None):
            self._storages.subtract(held.storages)
            for one in held.storages:
                if self._storages[one] <= 0:
                    del self._storages[one]
                    self._readers.pop(one, None)

    def retain(self, wanted: Callable[[str], bool]) -> None:
        """Let go of all outputs but the wanted."""
        for key in [key for key in self._held if not wanted(key)]:
            self.drop(key)

    def trim(self, used: Container[str]) -> None:
        """Of `lru`, let go of outputs beyond its size, but of none that is `used`; those not used for longest first."""
        if self.policy.name == "lru":
            spare = [key for key in self._held if key not in used]
            for key in spare[: max(0, len(self._held) - self.policy.size)]:
                self.drop(key)

    def relieve(self, readers: Mapping[str, int]) -> None:
        """Of `all`, let go of outputs that nothing waits to read while memory is short; the longest unused first."""
        if self.policy.name != "all" or _has_memory():
            return
        for key in [key for key in self._held if not readers.get(key)]:
            self.drop(key)
            if _has_memory():
                break

    def clear(self) -> None:
        """Let go of everything."""
        self._held.clear()
        self._storages.clear()
        self._readers.clear()


def _has_memory() -> bool:
    """Whether enough memory is left for others: as in ComfyUI, a tenth of it, at least 2 and at most 10 GB."""
    memory = psutil.virtual_memory()
    return memory.available >= min(10 * GB, max(2 * GB, memory.total * 0.1))
