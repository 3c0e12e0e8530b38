"""The record of a sweep as a whole: the parent of the MLflow runs of its jobs, its plan, and its contact sheet."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.record.artifacts import open_folder, write_text
from pipeline.record.facts import collect_origin
from pipeline.record.note import NOTE, begin_note
from pipeline.record.tracker import NewRun, TrackedRun
from pipeline.runs.facts import list_constants
from pipeline.runs.run import RunResult
from pipeline.sweep.axes import Axis
from pipeline.sweep.sheet.layout import SheetJob
from pipeline.sweep.sheet.live import LiveSheet
from pipeline.sweep.sheet.page import Status
from pipeline.sweep.sweep import Sweep, SweepJob

PLAN = "plan.txt"
SHOWN = 40  # the most characters of an axis's values in the name of a sweep


@dataclass
class SweepTotals:
    """Totals over the jobs of a sweep so far.

    seconds_saved: the time that the nodes which did not have to run again took when they ran.
    """

    jobs: int = 0
    jobs_failed: int = 0
    jobs_reused: int = 0
    nodes_run: int = 0
    nodes_reused: int = 0
    seconds_saved: float = 0.0
    _seconds: dict[str, float] = field(default_factory=dict)  # by content key

    def count(self, result: RunResult, keys: Mapping[str, str]) -> None:
        """Add the result of a job. `keys` are the content keys of its nodes, empty if it did not have to run."""
        if result.linked:
            self.jobs_reused += 1
            self.seconds_saved += result.metrics.get("seconds/total", 0.0)
        self.nodes_run += len(result.executed)
        self.nodes_reused += len(result.cached)
        ran = [name for name in result.executed if name in keys]  # nodes of expansions have none
        self._seconds.update((keys[name], result.metrics.get(f"seconds/{name}", 0.0)) for name in ran)
        self.seconds_saved += sum(self._seconds.get(keys[name], 0.0) for name in result.cached)

    def list_metrics(self) -> dict[str, float]:
        """Return name and value of each public field."""
        return {name: float(value) for name, value in vars(self).items() if not name.startswith("_")}


class SweepRecord:
    """The record of a sweep besides those of its jobs. `run` is its MLflow run, None without tracking.

    It begins with the first jobs that `extend` adds (an optimiser adds more later) and ends with `close`.

    Example:
        record = SweepRecord(folder, ["seed=1,2"], {"seed": "1,2"})
        record.extend(sweep, axes)
        record.keep(job, result, keys)  # for each job
        record.close("FINISHED")
    """

    def __init__(self, folder: Path, overrides: Sequence[str], swept: Mapping[str, str]):
        """Take folder and overrides of the whole sweep; `swept` has the expression of each swept setting, by path."""
        self.run: TrackedRun | None = None
        self.failed: list[SweepJob] = []
        self._folder = folder
        self._command = f"python run.py -m {shlex.join(overrides)}"
        self._swept = swept
        self._totals = SweepTotals()
        self._plans: list[str] = []
        self._sheet: LiveSheet | None = None

    def extend(self, sweep: Sweep, axes: Sequence[Axis]) -> None:
        """Add jobs that were checked and planned, before they run. Raises OutputError or TrackingError."""
        self._totals.jobs += len(sweep.jobs)
        self._plans.append(sweep.describe({}) + "\n")
        plan = write_text(open_folder(self._folder), PLAN, "\n".join(self._plans))
        if sweep.tracker and self.run is None:
            params = {axis.path: self._write_values(axis) for axis in axes}
            note = begin_note({**params, "jobs": str(len(sweep.jobs))}, self._command)
            tags = {**collect_origin(), NOTE: note}
            output_nodes = sweep.jobs[0].read.run.outputs
            new_run = NewRun(self._name(axes), params, tags, self._folder, axes=list(params), kept=output_nodes)
            self.run = sweep.tracker.start(new_run, time.time())
        if self.run:
            self.run.add_file(plan)
        jobs = [SheetJob(job.number, job.name, job.config.hydra.overrides.task) for job in sweep.jobs]
        if self._sheet is None:
            self._sheet = LiveSheet(self._folder, self._name(axes), axes, jobs)
        else:
            self._sheet.extend(axes, jobs)

    def keep(self, job: SweepJob, result: RunResult, keys: Mapping[str, str]) -> None:
        """Add the result of a job. `keys` are the content keys of its nodes, empty if it did not have to run."""
        self._totals.count(result, keys)
        self._place(job, next((path for path in result.files if path.suffix == ".png"), None), result)

    def keep_failure(self, job: SweepJob, error: Exception) -> None:
        """Add a job that failed."""
        self.failed.append(job)
        self._totals.jobs_failed += 1
        if self._sheet:
            self._sheet.place(job.number, None, "failed", {"error": str(error), **_list_settings(job)})

    def close(self, status: str) -> None:
        """Complete the record with the status FINISHED, FAILED or KILLED. Raises TrackingError."""
        files = self._sheet.close() if self._sheet else []
        if self.run is None:
            return
        for path in files:
            self.run.add_file(path, picture_key=path.stem if path.suffix == ".png" else None)
        now = time.time()
        self.run.log([(name, value, now, 0) for name, value in self._totals.list_metrics().items()])
        self.run.finish(status, now)
        self.run.wait()

    def _place(self, job: SweepJob, picture: Path | None, result: RunResult) -> None:
        assert self._sheet
        results = {name: f"{value:.4g}" for name, value in result.metrics.items() if name.count("/") < 2}
        status: Status = "reused" if result.linked else "finished"
        facts = {**result.marks, **_list_settings(job), **results}
        self._sheet.place(job.number, picture, status, facts, ", ".join(result.marks))

    def _name(self, axes: Sequence[Axis]) -> str:
        """Return the name of the sweep, such as `steps=4,8 seed=range(0,100)`."""
        values = [axis.word(self._write_values(axis)) for axis in axes]
        shortened = [text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..." for text in values]
        return " ".join(f"{axis.label}={text}" for axis, text in zip(axes, shortened, strict=True))

    def _write_values(self, axis: Axis) -> str:
        return self._swept.get(axis.path) or ",".join(axis.values)


def _list_settings(job: SweepJob) -> dict[str, str]:
    """Return the constants of the nodes of a job, by dotted path."""
    return {path: text for node in job.read.graph.values() for path, text in list_constants(node).items()}
