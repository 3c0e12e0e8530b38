"""What a run gave, for whoever called it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, Problem, TrackingError
from pipeline.graph.check import CheckedGraph
from pipeline.record.tracker import MLflowRun, TrackedRun

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunResult:
    """What a run gave.

    latents: the kept latents by node, tensors [batch, channels, (frames,) height, width] on the CPU.
    outputs: all outputs of the kept nodes, by node and output name, as ComfyUI gave them.
    executed, cached: which nodes ran, and whose outputs were known already.
    metrics: the last value of each metric of the record.
    facts: what its record.json says of it.
    folder, files: where the results lie; mlflow: the run in MLflow, None without tracking.
    pending: the record, if it was not waited for; see `wait`.
    linked: the id of the run whose results these are, if it was found in MLflow and nothing had to run; latents and
    outputs are then in the files only. A dry run has only `checked`.
    """

    checked: CheckedGraph
    latents: Mapping[str, torch.Tensor] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    executed: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    files: tuple[Path, ...] = ()
    mlflow: MLflowRun | None = None
    pending: TrackedRun | None = None
    linked: str | None = None

    @property
    def latent(self) -> torch.Tensor:
        """The kept latent of a run that keeps just one."""
        (samples,) = self.latents.values()
        return samples

    @property
    def not_finite(self) -> dict[str, str]:
        """The nodes of which a kept value is NaN or infinite, each with the share of such values (`12.5 %`); `some` in
        records that were made before the share was measured. Also of a run that was found."""
        found = {
            name.split("/")[1]: "some"
            for name, value in self.metrics.items()
            if re.fullmatch(r"latent/.+/(mean|min|max)", name) and not _is_finite(value)
        }
        return {**found, **self._read_shares("not_finite/")}

    @property
    def marks(self) -> dict[str, str]:
        """What is wrong with the results although the run finished, in a word or two each, with more about it."""
        found = {
            "not finite": self.not_finite,
            "LoRA does not fit": self._read_shares("lora_unfit/"),
            "not kept": {"": self.facts["not_kept"]} if "not_kept" in self.facts else {},
        }
        return {
            mark: ", ".join(f"{name} {text}".strip() for name, text in names.items())
            for mark, names in found.items()
            if names
        }

    def _read_shares(self, prefix: str) -> dict[str, str]:
        return {
            name.removeprefix(prefix): f"{100 * value:.4g} %"
            for name, value in self.metrics.items()
            if name.startswith(prefix)
        }

    def wait(self) -> MLflowRun | None:
        """The run in MLflow, once its record is complete; may be called from another thread. Raises TrackingError."""
        try:
            return self.pending.wait() if self.pending else self.mlflow
        except TrackingError as error:
            raise TrackingError(f"{error}\nThe results are kept: {self.folder}") from error

    def get_objective(self, metric: str | None) -> float | None:
        """The value of a metric. Raises ConfigError if it was not measured, because its node did not have to run, or if
        it says nothing, because it or a kept value is NaN or infinite: no sweeper may take that for a good trial."""
        if metric is None or self.folder is None:
            return None
        if metric not in self.metrics:
            message = f"{metric!r} was not measured: its node did not run, or gives no latent"
            raise ConfigError([Problem("value_not_in_list", "run.objective", message)])
        if self.not_finite:
            named = ", ".join(f"{name} ({text})" for name, text in self.not_finite.items())
            message = f"{metric!r} says nothing, because values are NaN or infinite: {named}"
            raise ConfigError([Problem("not_finite", "run.objective", message)])
        if not _is_finite(self.metrics[metric]):
            message = f"{metric!r} is no number that can be compared, got {self.metrics[metric]}"
            raise ConfigError([Problem("not_finite", "run.objective", message)])
        return self.metrics[metric]


def _is_finite(value: float) -> bool:
    """Whether a metric is a number; MLflow's SQL stores give the largest double for an infinite one."""
    return math.isfinite(value) and abs(value) < 1.79e308
