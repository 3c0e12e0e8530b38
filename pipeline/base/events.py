"""What the executor tells those who listen: the recorder, the progress bar, a test.

Plain data and no import of the project, so that neither the engine nor the record has to know the other. A
listener is called in order, in the thread that runs the nodes; it should return quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class RunStarted:
    """`order` are the nodes of the run; those in `cached` will not run again."""

    order: tuple[str, ...]
    cached: tuple[str, ...]


@dataclass(frozen=True)
class NodeStarted:
    node: str
    class_type: str


@dataclass(frozen=True)
class NodeProgress:
    """A node reports `value` of `total`; KSampler does so once per sampling step."""

    node: str
    value: int
    total: int


@dataclass(frozen=True)
class NodeFinished:
    node: str
    class_type: str
    seconds: float


Event: TypeAlias = RunStarted | NodeStarted | NodeProgress | NodeFinished
Listener: TypeAlias = Callable[[Event], None]
