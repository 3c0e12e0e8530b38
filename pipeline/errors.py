"""Every exception that latentgrid raises on purpose.

    PipelineError
    ├── ConfigError      the config cannot become a run; `problems` lists every fault
    │   ├── CycleError   nodes feed each other in a circle
    │   └── PromptError  no output of a prompt in ComfyUI's API format can run; has ComfyUI's own error and node_errors
    ├── ComfyUIError     ComfyUI cannot be found, installed or started
    ├── ModelFileError   model files cannot be fetched, or are not what they should be
    ├── NodeError        a node raised while it ran; names node, class_type and inputs
    │   └── RunInterrupted  the run was interrupted at that node
    ├── OutputError      a result cannot be written where the config says
    ├── RecordError      a record, or a latent to compare with, is missing, damaged, or of a newer latentgrid
    └── TrackingError    the MLflow record could not be written (the results on disk are kept)

A message has the form `<dotted path>: <what is wrong>, got <value>. <what would be right, or did you mean>`.
This module imports nothing of the project and nothing that is slow to import.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One fault in a config, found before anything ran.

    code: ComfyUI's own validation code where there is one (`value_smaller_than_min`, ...).
    where: the dotted path, which is also the Hydra override (`sampler.steps`).
    message: the rest of the sentence.

    Example:
        str(Problem("value_smaller_than_min", "sampler.steps", "must be at least 1, got 0"))
        # sampler.steps: must be at least 1, got 0
    """

    code: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class PipelineError(Exception):
    """The base class of every error that latentgrid raises on purpose."""


class ConfigError(PipelineError):
    """The config does not describe a run; `problems` holds every fault found, in the order of the config."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the error be pickled: sweeps send errors from process to process."""
        return type(self), (self.problems,)


class CycleError(ConfigError):
    """Nodes feed each other in a circle; `nodes` is the circle, its first node repeated at the end."""

    def __init__(self, nodes: Iterable[str]):
        self.nodes = tuple(nodes)
        super().__init__([Problem("dependency_cycle", "graph has a cycle", " -> ".join(self.nodes))])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.nodes,)


class PromptError(ConfigError):
    """No output of an API-format prompt can run, and nothing has run.

    error: ComfyUI's error for the whole prompt (`type`, `message`, `details`, `extra_info`).
    node_errors: for each faulty node its `class_type`, its `errors` of the same form, and `dependent_outputs`.
    """

    def __init__(self, error: Mapping[str, Any], node_errors: Mapping[str, Any]):
        self.error, self.node_errors = dict(error), dict(node_errors)
        problems = [
            Problem(one["type"], name, f"{one['message']}: {one['details']}")
            for name, node in self.node_errors.items()
            for one in node["errors"]
        ]
        message = f"{error['message']}: {error['details']}" if error["details"] else error["message"]
        super().__init__(problems or [Problem(error["type"], "prompt", message)])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.error, self.node_errors)


class ComfyUIError(PipelineError):
    """ComfyUI cannot be found, installed or started; the message says what to do."""


class ModelFileError(PipelineError):
    """Model files cannot be fetched, or are not what they should be; a line for each says what to do."""


class NodeError(PipelineError):
    """A node raised while it ran; the node's own exception is the `__cause__`.

    node: a node of the graph that was run. For a node that an expansion added, it is the node that expanded.
    inputs: a short text for each input, never a tensor.
    reason: the type and the message of the node's own exception.
    executed: the nodes that had begun.
    cached: the nodes whose outputs came from the cache.
    """

    def __init__(self, node: str, class_type: str, inputs: Mapping[str, str], cause: BaseException | str):
        self.node = node
        self.class_type = class_type
        self.inputs = dict(inputs)
        self.executed: tuple[str, ...] = ()
        self.cached: tuple[str, ...] = ()
        self.reason = cause if isinstance(cause, str) else f"{type(cause).__name__}: {cause}"
        inputs_text = ", ".join(f"{name}={text}" for name, text in self.inputs.items())
        super().__init__(f"{node}: {class_type} failed: {self.reason}\n  inputs: {inputs_text}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.node, self.class_type, self.inputs, self.reason)


class RunInterrupted(NodeError):
    """The run was interrupted, by ComfyUI's own flag, before or while this node ran."""


class OutputError(PipelineError):
    """A result cannot be written where the config says."""


class RecordError(PipelineError):
    """A record, or a latent to compare with, is missing or cannot be read; the message says which and why."""


class TrackingError(PipelineError):
    """The MLflow record could not be written; if there are results, the message names their folder."""


def did_you_mean(word: object, choices: Iterable[object]) -> str:
    """Return `; did you mean 'x'?` for the choice nearest to `word`, or an empty string if none is near.

    Case is ignored. A choice that contains the word, or that the word contains, is near as well.
    """
    names = {str(choice).lower(): str(choice) for choice in choices}
    lower_word = str(word).lower()
    near = difflib.get_close_matches(lower_word, names, n=1, cutoff=0.6) or [
        name for name in names if len(lower_word) > 2 and len(name) > 2 and (lower_word in name or name in lower_word)
    ]
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def shorten_list(names: Sequence[str], shown: int = 3, separator: str = ", ") -> str:
    """Return the first `shown` names and the number of the others as text: `a, b, c and 4 more`."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return separator.join(names[:shown]) + more
