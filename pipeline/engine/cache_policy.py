"""The setting `run.cache`: how long node outputs are retained."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import Problem


@dataclass(frozen=True)
class CachePolicy:
    """How long node outputs are retained.

    classic: the outputs that the last graph used, as with ComfyUI's --cache-classic.
    all: all outputs; while memory is short, those used longest ago are released.
    lru: the `size` outputs that were used last and all of the last graph, as with ComfyUI's --cache-lru.
    none: no output after its last reader in a run, as with ComfyUI's --cache-none; each node runs each time.

    Example: `CachePolicy.parse("lru:20")` returns `CachePolicy("lru", 20)`.
    """

    name: str = "classic"
    size: int = 0

    @classmethod
    def parse(cls, text: str) -> CachePolicy:
        """Parse `classic`, `all`, `lru:N` or `none`. Raises ValueError for any other text."""
        if text in ("classic", "all", "none"):
            return cls(text)
        if found := re.fullmatch(r"lru:([1-9]\d*)", text):
            return cls("lru", int(found[1]))
        raise ValueError(f"must be classic, all, lru:N or none, got {text!r}")

    @property
    def keeps_others(self) -> bool:
        """Whether outputs that a graph does not use are retained for a later one."""
        return self.name in ("all", "lru")


def find_policy_problems(where: str, text: str) -> list[Problem]:
    """Return a problem at the dotted path `where` if `text` is no policy, else an empty list."""
    try:
        CachePolicy.parse(text)
    except ValueError as error:
        return [Problem("value_not_in_list", where, str(error))]
    return []
