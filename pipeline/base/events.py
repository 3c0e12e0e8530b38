"""The events that the executor sends to listeners: the recorder, the progress bar, a test.

Events are plain data and this module imports nothing of the project, so the engine and the record need not know each
other. A listener is called for each event in order, in the thread that runs the nodes, and should return quickly.

Example:
    def listen(event: Event) -> None:
        if isinstance(event, NodeFinished):
            print(event.node, event.seconds)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class RunStarted:
    """A run begins. `order` holds the names of its nodes; those in `cached` will not run again."""

    order: tuple[str, ...]
    cached: tuple[str, ...]


@dataclass(frozen=True)
class NodeStarted:
    """A node begins to run."""

    node: str
    class_type: str


@dataclass(frozen=True)
class NodeProgress:
    """A node has done `value` of `total` steps; KSampler reports each sampling step."""

    node: str
    value: int
    total: int


@dataclass(frozen=True)
class NodeFinished:
    """A node has finished; `seconds` is how long it ran, without the time of other nodes that it waited for."""

    node: str
    class_type: str
    seconds: float


Event: TypeAlias = RunStarted | NodeStarted | NodeProgress | NodeFinished
Listener: TypeAlias = Callable[[Event], None]
