"""The result of a run, as its caller gets it."""

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
    """The result of a run. A dry run has only `checked`.

    latents: the latents of the requested nodes by node, tensors [batch, channels, (frames,) height, width] on the CPU.
    outputs: all outputs of the requested nodes, by node and output name, as ComfyUI returned them.
    executed, cached: the nodes that ran, and the nodes whose outputs were known already.
    metrics: the last value of each metric of the record.
    facts: the facts of its record.json.
    folder, files: where the results are.
    mlflow: the run in MLflow, None without tracking.
    pending: the record, if the call did not wait for it; see `wait`.
    linked: the id of the run whose results these are, if it was found in MLflow and nothing had to run; latents and
        outputs are then only in the files.
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
        """The latent of a run that has exactly one."""
        (samples,) = self.latents.values()
        return samples

    @property
    def not_finite(self) -> dict[str, str]:
        """The nodes with results that are NaN or infinite, each with the share of such values (`12.5 %`).

        The share is `some` in records that were made before it was measured. Results that were taken over count too.
        """
        found = {
            name.split("/")[1]: "some"
            for name, value in self.metrics.items()
            if re.fullmatch(r"latent/.+/(mean|min|max)", name) and not _is_finite(value)
        }
        return {**found, **self._read_shares("not_finite/")}

    @property
    def marks(self) -> dict[str, str]:
        """What is wrong with the results although the run finished: details by a name for the fault."""
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
        """Wait until the record is complete, and return the run in MLflow.

        It may be called from another thread. Raises TrackingError.
        """
        try:
            return self.pending.wait() if self.pending else self.mlflow
        except TrackingError as error:
            raise TrackingError(f"{error}\nThe results are kept: {self.folder}") from error

    def get_objective(self, metric: str | None) -> float | None:
        """Return the value of a metric, or None for a dry run or if `metric` is None.

        Raises ConfigError if it was not measured, because its node did not have to run. Raises ConfigError too if it or
        a result is NaN or infinite, because no sweeper may take that for a good trial.
        """
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
    """Return whether a metric is finite; MLflow's SQL stores return the largest double for an infinite one."""
    return math.isfinite(value) and abs(value) < 1.79e308
