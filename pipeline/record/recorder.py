"""Record one run: write its files, and log the events of the executor to MLflow as metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.events import Event, NodeFinished, NodeProgress, NodeStarted, RunStarted
from pipeline.base.file_state import FileState
from pipeline.base.tensor_digest import digest_tensors
from pipeline.record import artifacts, facts
from pipeline.record.note import NOTE, fail_note
from pipeline.record.tracker import MLflowRun, NewRun, TrackedRun, Tracker

if TYPE_CHECKING:
    import numpy as np
    import torch


LATENT_STATISTICS = ("mean", "std", "min", "max")


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run before it starts: the beginning of its record.

    prompt, workflow: the graph in ComfyUI's API format and in the format of its GUI.
    draw: returns a picture of the graph as an SVG document, given the nodes that come from the cache.
    identity, files, inputs: see `NewRun`.
    facts: the facts of its record.json that are not tags.
    """

    name: str
    config_yaml: str
    prompt: Mapping[str, Any]
    workflow: Mapping[str, Any]
    draw: Callable[[Collection[str]], str]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    identity: str
    files: Mapping[str, FileState]
    inputs: Mapping[str, FileState] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_facts(self) -> dict[str, str]:
        """All facts that are known before the run: `facts` and the tags that are not MLflow's own."""
        return {**{name: value for name, value in self.tags.items() if not name.startswith("mlflow.")}, **self.facts}


@dataclass
class Recorder:
    """Records one run: its files in `folder` and, if there is a `tracker`, its MLflow run, below `parent`.

    MLflow's record is written in the background, as `run`.

    outputs: the digest of each latent, by node.
    learnt: the facts that are known only after the run.
    tags: those of them that are tags in MLflow too.

    Example:
        recorder = Recorder(folder, facts, tracker)
        recorder.start()
        session.run(checked, recorder.listen)
        recorder.keep_latent("sampler", samples)
        recorder.finish("FINISHED", seconds)
        recorder.wait()
    """

    folder: Path
    facts: RunFacts
    tracker: Tracker | None = None
    parent: TrackedRun | None = None
    files: list[Path] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    learnt: dict[str, str] = field(default_factory=dict)
    run: TrackedRun | None = None
    _existing_files: dict[Path, FileState] = field(default_factory=dict)  # the files that existed when the nodes began
    _metrics: list[tuple[str, float, float, int]] = field(default_factory=list)
    _cached: tuple[str, ...] = ()
    _node: str = ""
    _last_time: float = 0.0

    def start(self) -> None:
        """Write what is known before the run. Raises OutputError or TrackingError."""
        facts.reset_peak_memory()
        artifacts.remove_record(self.folder)  # it is of an earlier run in this folder
        written = write_inputs(self.folder, self.facts)
        if self.tracker:
            self.tracker.raise_if_failed()
            # A parent of another tracker is left out: that tracker failed and was replaced.
            parent = self.parent if self.parent and self.parent.tracker is self.tracker else None
            known = self.facts
            new_run = NewRun(
                known.name,
                known.params,
                known.tags,
                self.folder,
                known.identity,
                known.files,
                known.inputs,
                known.all_facts,
            )
            self.run = self.tracker.start(new_run, time.time(), parent)
        for path in written:
            self._add(path)

    def listen(self, event: Event) -> None:
        """Record an event of the executor as metrics. At `RunStarted`, write the picture of the graph."""
        match event:
            case RunStarted():
                self._reset()
                self._cached = event.cached
                self._add(artifacts.write_text(self.folder, artifacts.GRAPH, self.facts.draw(event.cached)))
            case NodeStarted():
                self._node, self._last_time = event.node, time.perf_counter()
            case NodeProgress() if event.node == self._node:
                now = time.perf_counter()
                self.measure(f"seconds_per_step/{event.node}", now - self._last_time, event.value)
                self._last_time = now
            case NodeFinished():
                self.measure(f"seconds/{event.node}", event.seconds)

    def _reset(self) -> None:
        """Discard what was measured, and do not take files that exist now for outputs of nodes.

        A run that was out of memory starts again, and so sends `RunStarted` again.
        """
        self._metrics.clear()
        self._existing_files = {path: FileState.of(path) for path in artifacts.list_files(self.folder)}
        facts.reset_peak_memory()

    def keep_latent(self, node: str, samples: torch.Tensor) -> None:
        """Write a latent as a `.latent` file."""
        self._add(artifacts.write_latent(self.folder, node, samples, self._list_embedded()))
        self.outputs[node] = digest_tensors(samples) or ""

    def keep_pt(self, node: str, samples: torch.Tensor) -> None:
        """Write a latent as a `.pt` file too."""
        self._add(artifacts.write_pt(self.folder, node, samples))

    def keep_picture(self, node: str, pixels: np.ndarray) -> None:
        """Write the picture of a latent, uint8 [height, width, 3]."""
        path = artifacts.write_picture(self.folder, node, pixels, self._list_embedded())
        self._add(path, picture_key=node)

    def keep_statistics(self, node: str, samples: torch.Tensor) -> None:
        """Add the statistics of a latent as metrics."""
        values = samples.detach().float()
        for name in LATENT_STATISTICS:
            self.measure(f"latent/{node}/{name}", float(getattr(values, name)()))

    def mark(self, tag: str, found: Mapping[str, str]) -> None:
        """Add to a tag what is wrong with results, by node, such as `sampler: 12.5 %` to the tag `not_finite`."""
        texts = [self.tags[tag]] if tag in self.tags else []
        self.tags[tag] = ", ".join([*texts, *(f"{name}: {text}" for name, text in found.items())])[:5000]

    def _list_embedded(self) -> dict[str, str]:
        return artifacts.list_embedded(self.facts.prompt, self.facts.workflow)

    def keep_distances(self, node: str, distances: Mapping[str, float]) -> None:
        """Add the distances between a latent and that of a reference as metrics; `distances` has them by name."""
        for name, value in distances.items():
            self.measure(f"distance/{node}/{name}", value)

    def keep_others(self) -> None:
        """Add the files that ComfyUI's own savers wrote into the folder."""
        for path in artifacts.list_files(self.folder):
            if path not in self.files and self._existing_files.get(path) != FileState.of(path):
                self._add(path)

    def finish(self, status: str, seconds: float, error: str = "", learnt: Mapping[str, str] | None = None) -> None:
        """Complete the record with one of MLflow's statuses: FINISHED, FAILED or KILLED.

        `learnt` are the facts that are known only after the run. The record is complete in MLflow after `wait`.
        """
        self.learnt = {**(learnt or {}), **self.tags, "cached": " ".join(self._cached) or "none"}
        self.measure("seconds/total", seconds)
        for name, value in facts.measure_peak_memory().items():
            self.measure(name, value)
        if self.run:
            tags = {"cached": self.learnt["cached"], **self.tags}
            if error:
                tags["error"] = error[:5000]
                tags[NOTE] = fail_note(self.facts.tags.get(NOTE, ""), error)
            self.run.log(self._metrics, tags)
            self.run.finish(status, time.time(), self.learnt, self.outputs)

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric so far."""
        return {name: value for name, value, _, _ in self._metrics}

    def wait(self) -> MLflowRun | None:
        """Wait until the finished record is complete; return None without a tracker. Raises TrackingError."""
        return self.run.wait() if self.run else None

    def measure(self, name: str, value: float, step: int = 0) -> None:
        """Add a value of a metric."""
        self._metrics.append((name, value, time.time(), step))

    def _add(self, path: Path, picture_key: str | None = None) -> None:
        if path not in self.files:  # a run that was out of memory starts again and may write it again
            self.files.append(path)
        if self.run:
            self.run.add_file(path, picture_key)


def write_inputs(folder: Path, run: RunFacts) -> list[Path]:
    """Write the config of a run, its prompt and its workflow into a folder. Raises OutputError."""
    return [
        artifacts.write_text(folder, artifacts.CONFIG, run.config_yaml),
        artifacts.write_prompt(folder, run.prompt),
        artifacts.write_workflow(folder, run.workflow),
    ]
