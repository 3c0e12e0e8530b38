"""What differs between the jobs of a sweep: its axes, and a short name for each job."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.config.read import SECTIONS
from pipeline.graph.reader import BYPASS

SWITCH = {"true": "off", "false": "on"}
"""What the values of `_bypass_` mean for the node that a label names."""


@dataclass(frozen=True)
class Axis:
    """A setting that a sweep varies.

    path: as on the command line, `sampler.steps`; a config group, `lora`, is an axis too.
    label: short and unlike that of any other axis, `steps`.
    values: as they are written in overrides, each once, in the order of the jobs.
    """

    path: str
    label: str
    values: tuple[str, ...]

    def word(self, values: str) -> str:
        """Return values, one or the expression of several, as they read beside the label: a node is `on` where its
        `_bypass_` is false."""
        if not self.path.endswith(f".{BYPASS}") or self.label == self.path:
            return values
        return re.sub(r"\b(true|false)\b", lambda found: SWITCH[found[0].lower()], values, flags=re.IGNORECASE)


def find_axes(jobs: Sequence[Sequence[str]], swept: Collection[str] = ()) -> tuple[Axis, ...]:
    """The axes of a sweep, in the order of the command line, from the overrides of its jobs.

    `swept` are settings that are axes whatever the jobs so far: an optimiser's first jobs may all agree in one.
    """
    settings = [read_overrides(overrides) for overrides in jobs]
    paths = dict.fromkeys(path for job in settings for path in job if not path.startswith("hydra."))
    values = {path: tuple(dict.fromkeys(job.get(path, "") for job in settings)) for path in paths}
    swept = [path for path in paths if len(values[path]) > 1 or path in swept]
    labels = _choose_labels(swept)
    return tuple(Axis(path, labels[path], values[path]) for path in swept)


def read_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Path and value of each override, the value as a person reads it; that of `~lora` is empty."""
    found = {}
    for override in overrides:
        path, _, value = override.partition("=")
        found[path.lstrip("+~")] = _unquote(value)
    return found


def _unquote(value: str) -> str:
    """Without the quotes around a text, and without the backslashes that Hydra's sweepers put before its spaces."""
    quoted = re.fullmatch(r"""(['"])(.*)\1""", value, re.DOTALL)
    return re.sub(r"\\(.)", r"\1", quoted[2] if quoted else value)


def name_job(overrides: Sequence[str], axes: Sequence[Axis]) -> str:
    """What sets a job apart from the others of its sweep: `steps=8 lora=off seed=3`."""
    settings = read_overrides(overrides)
    return " ".join(f"{axis.label}={axis.word(settings.get(axis.path, ''))}" for axis in axes)


def _choose_labels(paths: Sequence[str]) -> dict[str, str]:
    """The shorter one of an input and its node (`steps`, `lora`), the whole path where two would be the same."""
    short = {path: _shorten(path) for path in paths}
    counts = Counter(short.values())
    return {path: label if counts[label] == 1 else path for path, label in short.items()}


def _shorten(path: str) -> str:
    """Words of the program (`_bypass_`) last, then long ones; the name of a section (`run.outputs`) says nothing."""
    first, last = path.split(".")[0], path.split(".")[-1]
    return last if first in SECTIONS else min(last, first, key=lambda word: (word.startswith("_"), len(word)))
