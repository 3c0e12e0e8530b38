"""Which nodes are still to run, what each of them waits for, and which one runs next."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable


class Schedule:
    """A graph that dissolves from its sources while its nodes finish; nodes and waits can be added as it does.

    Of the nodes that are ready the next one is an urgent one (an output node shows something and frees what it read, an
    async one waits while others run), then the one that became ready last: a branch is finished before another begins,
    so that the fewest outputs are held at once. Nodes that became ready together go in the order of their `place`.
    """

    def __init__(self) -> None:
        self._waits: dict[str, set[str]] = {}
        self._readers: dict[str, set[str]] = {}
        self._rank: dict[str, tuple[bool, int]] = {}
        self._ready: list[tuple[bool, int, int, str]] = []
        self._rounds = itertools.count(-1, -1)
        self._round = 0

    def __contains__(self, name: str) -> bool:
        return name in self._waits

    def __bool__(self) -> bool:
        return bool(self._waits)

    def add(self, name: str, place: int, urgent: bool, waits: Iterable[str]) -> None:
        """Add a node that is ready when the nodes of `waits` have finished."""
        self._rank[name] = (not urgent, place)
        self._waits[name] = set()
        self.wait(name, waits)

    def wait(self, name: str, others: Iterable[str]) -> None:
        """Let a node that is not ready any more wait for others as well; without any it is ready again."""
        self._waits[name].update(others)
        for other in self._waits[name]:
            self._readers.setdefault(other, set()).add(name)
        if not self._waits[name]:
            self._make_ready(name)

    def pop(self) -> str | None:
        """The next node to run; None if none is ready."""
        return heapq.heappop(self._ready)[-1] if self._ready else None

    def finish(self, name: str) -> None:
        """Take out a node, whose readers need no longer wait for it."""
        del self._waits[name], self._rank[name]
        self._round = next(self._rounds)
        for reader in self._readers.pop(name, ()):
            self._waits[reader].discard(name)
            if not self._waits[reader]:
                self._make_ready(reader)

    def find_circle(self) -> list[str]:
        """Nodes that wait for each other, when none is ready; the first is repeated last."""
        way: dict[str, None] = {}
        name = next(iter(self._waits))
        while name not in way:
            way[name] = None
            name = next(iter(self._waits[name]))
        names = list(way)
        return [*names[names.index(name) :], name]

    def _make_ready(self, name: str) -> None:
        calm, place = self._rank[name]
        heapq.heappush(self._ready, (calm, self._round, place, name))
