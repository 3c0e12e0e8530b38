"""The schedule of a run: which nodes still have to run, what each waits for, and which one is next."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable


class Schedule:
    """The nodes that have not finished, with the nodes that each waits for. Nodes and waits can be added at any time.

    Urgent nodes come first (an output node shows something and releases what it read, an async node waits while others
    run), then the node that became ready last: a branch is finished before another begins, so that few outputs are in
    memory at once. Nodes that became ready together come in the order of their `place`.

    Example:
        schedule = Schedule()
        schedule.add("model", place=0, urgent=False, waits=[])
        schedule.add("sampler", place=1, urgent=False, waits=["model"])
        schedule.pop()  # "model"
        schedule.finish("model")
        schedule.pop()  # "sampler"
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
        """Add a node that becomes ready when the nodes of `waits` have finished."""
        self._rank[name] = (not urgent, place)
        self._waits[name] = set()
        self.wait(name, waits)

    def wait(self, name: str, others: Iterable[str]) -> None:
        """Let a node that `pop` has returned wait for `others`; if there are none, it is ready again."""
        self._waits[name].update(others)
        for other in self._waits[name]:
            self._readers.setdefault(other, set()).add(name)
        if not self._waits[name]:
            self._make_ready(name)

    def pop(self) -> str | None:
        """Return the next node to run, or None if no node is ready."""
        return heapq.heappop(self._ready)[-1] if self._ready else None

    def finish(self, name: str) -> None:
        """Remove a finished node; nodes that waited for no other become ready."""
        del self._waits[name], self._rank[name]
        self._round = next(self._rounds)
        for reader in self._readers.pop(name, ()):
            self._waits[reader].discard(name)
            if not self._waits[reader]:
                self._make_ready(reader)

    def find_circle(self) -> list[str]:
        """Return nodes that wait for each other, when no node is ready; the first is repeated at the end."""
        path: dict[str, None] = {}
        name = next(iter(self._waits))
        while name not in path:
            path[name] = None
            name = next(iter(self._waits[name]))
        names = list(path)
        return [*names[names.index(name) :], name]

    def _make_ready(self, name: str) -> None:
        not_urgent, place = self._rank[name]
        heapq.heappush(self._ready, (not_urgent, self._round, place, name))
