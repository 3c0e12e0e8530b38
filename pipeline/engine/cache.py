"""Outputs kept from run to run, by content."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

import psutil

from pipeline.engine.cache_policy import CachePolicy
from pipeline.engine.comfyui.call import NodeOutputs

GB = 1024**3


@dataclass(frozen=True)
class _Held:
    outputs: NodeOutputs
    folder: str | None


class OutputCache:
    """Outputs by content key; what was used last comes last."""

    def __init__(self) -> None:
        self.policy = CachePolicy()
        self._held: dict[str, _Held] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def find(self, key: str, folder: str | None = None) -> NodeOutputs | None:
        """The outputs of `key`, if they are held. Those of an output node must have been written into `folder`."""
        held = self._held.get(key)
        return held.outputs if held and (folder is None or held.folder == folder) else None

    def put(self, key: str, outputs: NodeOutputs, folder: str | None = None) -> None:
        """Hold outputs; `folder` is where an output node wrote."""
        self._held.pop(key, None)
        self._held[key] = _Held(outputs, folder)

    def touch(self, key: str) -> None:
        """Note that outputs are used."""
        if held := self._held.pop(key, None):
            self._held[key] = held

    def drop(self, key: str) -> None:
        """Let go of the outputs of `key`, if they are held."""
        self._held.pop(key, None)

    def retain(self, wanted: Callable[[str], bool]) -> None:
        """Let go of all outputs but the wanted."""
        self._held = {key: held for key, held in self._held.items() if wanted(key)}

    def trim(self, used: Container[str]) -> None:
        """Of `lru`, let go of outputs beyond its size, but of none that is `used`; those not used for longest first."""
        if self.policy.name == "lru":
            spare = [key for key in self._held if key not in used]
            for key in spare[: max(0, len(self._held) - self.policy.size)]:
                del self._held[key]

    def relieve(self, readers: Mapping[str, int]) -> None:
        """Of `all`, let go of outputs that nothing waits to read while memory is short; the longest unused first."""
        if self.policy.name != "all" or _has_memory():
            return
        for key in [key for key in self._held if not readers.get(key)]:
            del self._held[key]
            if _has_memory():
                break

    def clear(self) -> None:
        """Let go of everything."""
        self._held.clear()


def _has_memory() -> bool:
    """Whether enough memory is left for others: as in ComfyUI, a tenth of it, at least 2 and at most 10 GB."""
    memory = psutil.virtual_memory()
    return memory.available >= min(10 * GB, max(2 * GB, memory.total * 0.1))
