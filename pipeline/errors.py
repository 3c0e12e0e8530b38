"""Every exception latentgrid raises on purpose, as a tree:

    PipelineError
    ├── ConfigError      the config cannot become a run; `problems` lists every fault
    │   └── CycleError   nodes feed each other in a circle
    ├── ComfyUIError     ComfyUI cannot be found, installed or started
    ├── NodeError        a node raised while it ran; names node, class_type and inputs
    ├── OutputError      a result cannot be written where the config says
    └── TrackingError    the MLflow record could not be written (the results on disk are kept)

A message reads `<dotted path>: <what is wrong>, got <value>. <what would be right, or did you mean>`.
This module imports nothing of the project and nothing heavy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One fault in a config, found before anything ran.

    `code` is ComfyUI's own validation code where there is one (`value_smaller_than_min`, ...), `where` the
    dotted path that is also the Hydra override (`sampler.steps`), `message` the rest of the sentence.
    """

    code: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class PipelineError(Exception):
    """Root of the tree: catch this to catch every error that latentgrid raises on purpose."""


class ConfigError(PipelineError):
    """The config does not describe a run. `problems` holds every fault found, in the order of the config."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        """Sweeps send errors from process to process."""
        return type(self), (self.problems,)


class CycleError(ConfigError):
    """Nodes feed each other in a circle; `nodes` is the circle, its first node repeated at the end."""

    def __init__(self, nodes: Iterable[str]):
        self.nodes = tuple(nodes)
        super().__init__([Problem("dependency_cycle", "graph has a cycle", " -> ".join(self.nodes))])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.nodes,)


class ComfyUIError(PipelineError):
    """ComfyUI cannot be found, installed or started; the message says what to do."""


class NodeError(PipelineError):
    """A node raised while it ran; the node's own exception is the `__cause__`, and `reason` its type and message.

    `inputs` holds a short text for each input, never a tensor.
    """

    def __init__(self, node: str, class_type: str, inputs: Mapping[str, str], cause: BaseException | str):
        self.node = node
        self.class_type = class_type
        self.inputs = dict(inputs)
        self.reason = cause if isinstance(cause, str) else f"{type(cause).__name__}: {cause}"
        given = ", ".join(f"{name}={text}" for name, text in self.inputs.items())
        super().__init__(f"{node}: {class_type} failed: {self.reason}\n  inputs: {given}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.node, self.class_type, self.inputs, self.reason)


class OutputError(PipelineError):
    """A result cannot be written where the config says."""


class TrackingError(PipelineError):
    """The MLflow record could not be written; if there are results already, the message names their folder."""


def did_you_mean(word: object, choices: Iterable[object]) -> str:
    """Return `; did you mean 'x'?` for the choice nearest to `word`, or an empty string if none is near.

    Compares without regard to case, and also finds a choice that contains the word or is contained in it.
    """
    names = {str(choice).lower(): str(choice) for choice in choices}
    wanted = str(word).lower()
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6) or [
        name for name in names if len(wanted) > 2 and len(name) > 2 and (wanted in name or name in wanted)
    ]
    return f"; did you mean {names[near[0]]!r}?" if near else ""
