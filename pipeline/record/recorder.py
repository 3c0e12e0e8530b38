"""The record of one run: what is kept, and when. Listens to the executor's events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.events import Event, NodeFinished, NodeProgress, NodeStarted, RunStarted
from pipeline.record import artifacts, facts
from pipeline.record.tracker import MLflowRun, Tracker

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run before it starts: the beginning of its record."""

    name: str
    config_yaml: str
    prompt: Mapping[str, Any]
    params: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass
class Recorder:
    """Keeps one run: its files in `folder`, and its MLflow run if there is a `tracker`.

    Call `start`, pass it the executor's events, `keep_latent` for what is kept, then `finish` once.
    """

    folder: Path
    facts: RunFacts
    tracker: Tracker | None = None
    files: list[Path] = field(default_factory=list)
    started: bool = False
    _metrics: list[tuple[str, float, float, int]] = field(default_factory=list)
    _cached: tuple[str, ...] = ()
    _node: str = ""
    _last: float = 0.0

    def start(self) -> None:
        """Write what is known before the run. Raises OutputError or TrackingError."""
        facts.reset_peak_memory()
        written = [
            artifacts.write_text(self.folder, artifacts.CONFIG, self.facts.config_yaml),
            artifacts.write_prompt(self.folder, self.facts.prompt),
        ]
        if self.tracker:
            self.tracker.raise_if_failed()
            self.started = True
            self.tracker.start(self.facts.name, self.facts.params, self.facts.tags, time.time())
        for path in written:
            self._add(path)

    def listen(self, event: Event) -> None:
        """Turn an event of the executor into metrics."""
        match event:
            case RunStarted():
                self._cached = event.cached
            case NodeStarted():
                self._node, self._last = event.node, time.perf_counter()
            case NodeProgress() if event.node == self._node:
                now = time.perf_counter()
                self._measure(f"seconds_per_step/{event.node}", now - self._last, event.value)
                self._last = now
            case NodeFinished():
                self._measure(f"seconds/{event.node}", event.seconds)

    def keep_latent(
        self, node: str, samples: torch.Tensor, pixels: np.ndarray | None = None, save_pt: bool = False
    ) -> None:
        """Write a latent, its picture if there is one, and its statistics."""
        prompt = self.facts.prompt
        self._add(artifacts.write_latent(self.folder, node, samples, prompt))
        if save_pt:
            self._add(artifacts.write_pt(self.folder, node, samples))
        if pixels is not None:
            self._add(artifacts.write_picture(self.folder, node, pixels, prompt), picture_key=node)
        values = samples.detach().float()
        for name in ("mean", "std", "min", "max"):
            self._measure(f"latent/{node}/{name}", float(getattr(values, name)()))

    def finish(self, status: str, seconds: float, error: str = "") -> MLflowRun | None:
        """Complete the record with a status of MLflow's: FINISHED, FAILED or KILLED. Raises TrackingError."""
        self._measure("seconds/total", seconds)
        for name, value in facts.measure_peak_memory().items():
            self._measure(name, value)
        if self.tracker is None:
            return None
        tags = {"cached": " ".join(self._cached) or "none"}
        if error:
            tags["error"] = error[:5000]
        self.tracker.log(self._metrics, tags)
        return self.tracker.finish(status, time.time())

    def _measure(self, name: str, value: float, step: int = 0) -> None:
        self._metrics.append((name, value, time.time(), step))

    def _add(self, path: Path, picture_key: str | None = None) -> None:
        self.files.append(path)
        if self.tracker:
            self.tracker.add_file(path, picture_key)
