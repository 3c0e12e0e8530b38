"""Find the axes of a sweep, which are the settings that differ between its jobs, and name each job by them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.config.read import SECTIONS
from pipeline.graph.reader import BYPASS

SWITCH = {"true": "off", "false": "on"}
"""The words for the values of `_bypass_` beside a label that names the node."""


@dataclass(frozen=True)
class Axis:
    """A setting that a sweep varies.

    path: as on the command line, `sampler.steps`. A config group such as `lora` is an axis too.
    label: a short name that no other axis has, `steps`.
    values: as they are written in overrides, each once, in the order of the jobs.
    """

    path: str
    label: str
    values: tuple[str, ...]

    def word(self, values: str) -> str:
        """Return `values`, a value or an expression for several, as they read beside the label.

        If the label names a node and the axis is its `_bypass_`, `false` becomes `on` and `true` becomes `off`.
        """
        if not self.path.endswith(f".{BYPASS}") or self.label == self.path:
            return values
        return re.sub(r"\b(true|false)\b", lambda found: SWITCH[found[0].lower()], values, flags=re.IGNORECASE)


def find_axes(jobs: Sequence[Sequence[str]], swept: Collection[str] = ()) -> tuple[Axis, ...]:
    """Return the axes of a sweep, in the order of the command line.

    jobs: the overrides of each job.
    swept: settings that are axes even if all jobs so far agree in them, as the first jobs of an optimiser may.

    Example:
        find_axes([["sampler.steps=4", "seed=1"], ["sampler.steps=8", "seed=1"]])
        # (Axis("sampler.steps", "steps", ("4", "8")),)
    """
    settings = [read_overrides(overrides) for overrides in jobs]
    paths = dict.fromkeys(path for job in settings for path in job if not path.startswith("hydra."))
    values = {path: tuple(dict.fromkeys(job.get(path, "") for job in settings)) for path in paths}
    swept = [path for path in paths if len(values[path]) > 1 or path in swept]
    labels = _choose_labels(swept)
    return tuple(Axis(path, labels[path], values[path]) for path in swept)


def read_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Return the values of overrides by path, without quotes and escapes. The value of `~lora` is empty."""
    values = {}
    for override in overrides:
        path, _, value = override.partition("=")
        values[path.lstrip("+~")] = _unquote(value)
    return values


def _unquote(value: str) -> str:
    """Return a value without its quotes and without the backslashes that Hydra's sweepers put before spaces."""
    quoted = re.fullmatch(r"""(['"])(.*)\1""", value, re.DOTALL)
    return re.sub(r"\\(.)", r"\1", quoted[2] if quoted else value)


def name_job(overrides: Sequence[str], axes: Sequence[Axis]) -> str:
    """Return what distinguishes a job from the others of its sweep, such as `steps=8 lora=off seed=3`."""
    settings = read_overrides(overrides)
    return " ".join(f"{axis.label}={axis.word(settings.get(axis.path, ''))}" for axis in axes)


def _choose_labels(paths: Sequence[str]) -> dict[str, str]:
    """Return a label for each path: a short one (`steps`, `lora`), or the path if another has the same short one."""
    short_labels = {path: _shorten(path) for path in paths}
    counts = Counter(short_labels.values())
    return {path: label if counts[label] == 1 else path for path, label in short_labels.items()}


def _shorten(path: str) -> str:
    """Return the first or the last word of a path, whichever is shorter.

    A word of the program (`_bypass_`) counts as longer than any other. The name of a section (`run.outputs`) is never
    returned, because it says nothing about the setting.
    """
    first, last = path.split(".")[0], path.split(".")[-1]
    return last if first in SECTIONS else min(last, first, key=lambda word: (word.startswith("_"), len(word)))
