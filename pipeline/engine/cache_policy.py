"""How long outputs are kept: the setting `run.cache`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import Problem


@dataclass(frozen=True)
class CachePolicy:
    """How long outputs are kept.

    classic: what the last graph used, as ComfyUI's --cache-classic.
    all: everything, as long as there is memory; then what was not used for longest goes.
    lru: the `size` outputs used last, and all of the last graph, as ComfyUI's --cache-lru.
    none: nothing beyond its last reader in a run, as ComfyUI's --cache-none; each node runs each time.
    """

    name: str = "classic"
    size: int = 0

    @classmethod
    def parse(cls, text: str) -> CachePolicy:
        """Read `classic`, `all`, `lru:N` or `none`. Raises ValueError."""
        if text in ("classic", "all", "none"):
            return cls(text)
        if found := re.fullmatch(r"lru:([1-9]\d*)", text):
            return cls("lru", int(found[1]))
        raise ValueError(f"must be classic, all, lru:N or none, got {text!r}")

    @property
    def keeps_others(self) -> bool:
        """Whether outputs that a graph does not use stay for a later one."""
        return self.name in ("all", "lru")


def find_policy_problems(where: str, text: str) -> list[Problem]:
    """What is wrong with a policy given at `where`."""
    try:
        CachePolicy.parse(text)
    except ValueError as error:
        return [Problem("value_not_in_list", where, str(error))]
    return []
