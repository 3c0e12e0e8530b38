"""The MLflow record, seen from the run: messages to a separate process that does the writing.

Importing mlflow takes seconds, and so do the migrations of a new SQLite store. In a separate process both happen while
ComfyUI starts, delay no sampling, and keep mlflow's threads and global state out of the process that holds the GPU. If
this process dies, the writer notices it and marks the open runs KILLED.
"""

from __future__ import annotations

import atexit
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base.file_state import FileState
from pipeline.errors import TrackingError
from pipeline.record.queries import RunStore
from pipeline.record.writer_link import WriterLink, describe_failure, name_runs


@dataclass(frozen=True)
class TrackingSettings:
    """The `tracking` section of the config: where MLflow records runs.

    uri: an MLflow tracking URI; a relative sqlite path is relative to the working directory; null: no record.
    experiment_name: the MLflow experiment; it is created if it does not exist.
    system_metrics: whether MLflow logs the use of CPU, memory, disk, network and GPUs during each run.
    """

    uri: str | None = None
    experiment_name: str | None = None
    system_metrics: bool = False


@dataclass(frozen=True)
class NewRun:
    """The beginning of the record of a run or a sweep.

    folder: where the files of the run lie, in sub-folders or not; their path in it is their name in MLflow.
    identity, files, inputs: what the results follow from (key, model files and other files by dotted path), by which
        another sweep finds the run. A run with an empty identity is not found and has no record.json.
    facts: the facts of its record.json.
    axes: of a sweep, the settings that differ between the runs below it.
    kept: of a sweep, the nodes whose latents these runs write.
    """

    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    folder: Path
    identity: str = ""
    files: Mapping[str, FileState] = field(default_factory=dict)
    inputs: Mapping[str, FileState] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    axes: Sequence[str] = ()
    kept: Sequence[str] = ()


@dataclass(frozen=True)
class MLflowRun:
    """The place of a run in MLflow. `uri` is its store: the local one if the server was out of reach."""

    run_id: str
    experiment_id: str
    uri: str


class Tracker:
    """A connection to the process that writes to MLflow.

    The writer lives until this process ends. If it dies, another one takes its place and writes what it had not
    finished. Messages are handled in the order in which they are sent, while this process goes on. One thread sends
    them; another may wait for the records.

    A run that MLflow does not accept is lost: only its own `wait` and that of the run above it raise TrackingError.
    When nothing can be written any more, `failed` is true, and queries and new runs raise TrackingError; a new tracker
    may succeed. `store` answers queries.

    Example:
        tracker = Tracker(TrackingSettings("sqlite:///outputs/mlflow.db", "latentgrid"))
        run = tracker.start(NewRun("first", {"seed": "1"}, {}, folder), time.time())
        run.log([("seconds/total", 1.5, time.time(), 0)])
        run.finish("FINISHED", time.time())
        run.wait().run_id
    """

    def __init__(self, settings: TrackingSettings):
        self._settings = settings
        self._count = 0
        self._link = WriterLink(
            str(settings.uri),
            {
                "do": "open",
                "uri": settings.uri,
                "experiment": settings.experiment_name,
                "system_metrics": settings.system_metrics,
            },
        )
        self.store = RunStore(self._link, str(settings.uri))
        atexit.register(self.close)

    @property
    def failed(self) -> bool:
        """Whether nothing can be written any more."""
        return bool(self._link.failed)

    def start(self, run: NewRun, started: float, parent: TrackedRun | None = None) -> TrackedRun:
        """Begin a run, below `parent` if given; `started` is in seconds since the epoch."""
        return self._begin(
            "start",
            parent,
            name=run.name,
            params=dict(run.params),
            tags=dict(run.tags),
            folder=str(run.folder.resolve()),
            identity=run.identity,
            files={where: astuple(state) for where, state in run.files.items()},
            inputs={where: astuple(state) for where, state in run.inputs.items()},
            facts=dict(run.facts),
            axes=list(run.axes),
            kept=list(run.kept),
            time=started,
        )

    def link(
        self,
        name: str,
        source: str,
        folder: Path,
        linked: float,
        parent: TrackedRun | None,
        params: Mapping[str, str] | None = None,
        note: str | None = None,
        own: Sequence[str] = (),
    ) -> TrackedRun:
        """Begin and finish a run that takes over the results of the finished run with the id `source`.

        Its files are copied into `folder`, and the new record names it. The new run takes no more messages. `linked` is
        the time of the new run in seconds since the epoch. `params` and `note` are its own, None for those of `source`,
        and `own` the names of the files that it has written into `folder` itself, instead of those of `source`.
        """
        content = {"params": None if params is None else dict(params), "note": note, "own": list(own)}
        where = str(folder.resolve())
        return self._begin("link", parent, name=name, source=source, folder=where, time=linked, **content)

    def wait_for(self, number: int) -> MLflowRun:
        """Wait until the records of a finished run and of the runs below it are complete; return its place in MLflow.

        Raises TrackingError, which names the runs whose records are lost.
        """
        self._link.wait(number)
        uri, lost = self._settings.uri, self._link.lost
        if number in lost:
            raise TrackingError(f"tracking.uri: MLflow at {uri!r} did not take the record: {lost[number].reason}")
        lost_children = [one for one in lost.values() if one.parent == number]
        if lost_children:
            names = name_runs([one.name for one in lost_children])
            raise TrackingError(
                f"tracking.uri: MLflow at {uri!r} did not take the records of {names}: {lost_children[0].reason}\n"
                "Their results are kept; the same command runs them again"
            )
        if number not in self._link.finished:
            raise TrackingError(describe_failure(str(uri), self._link.failed, self._link.name_unwritten()))
        answer = self._link.finished[number]
        return MLflowRun(answer["run_id"], answer["experiment_id"], answer["uri"])

    def send(self, command: str, run: int, **content: Any) -> None:
        """Send the writer a message about a run."""
        self._link.tell({"do": command, "run": run, **content})

    def raise_if_failed(self) -> None:
        """Raise TrackingError if nothing can be written any more.

        If the store is a server, wait until it is open: it may refuse access, and nothing should be computed before
        that is known.
        """
        self._link.check()

    def close(self) -> None:
        """Let the writer finish its work and end. Idempotent."""
        atexit.unregister(self.close)
        self._link.close()

    def _begin(self, command: str, parent: TrackedRun | None, **content: Any) -> TrackedRun:
        if self.failed:
            self._link.check()
        self._count += 1
        parent_number = parent.number if parent else None
        self.send(command, self._count, record=uuid.uuid4().hex, parent=parent_number, **content)
        return TrackedRun(self, self._count)


@dataclass(frozen=True)
class TrackedRun:
    """A run that a tracker has begun. It is RUNNING in MLflow until `finish`."""

    tracker: Tracker
    number: int

    def log(self, metrics: Sequence[tuple[str, float, float, int]] = (), tags: Mapping[str, str] | None = None) -> None:
        """Add metrics (key, value, seconds since the epoch, step) and tags."""
        self.tracker.send("log", self.number, metrics=list(metrics), tags=dict(tags or {}))

    def add_file(self, path: Path, picture_key: str | None = None) -> None:
        """Add a file as an artifact. MLflow's comparison of runs also shows it if it is a picture with a key."""
        self.tracker.send("file", self.number, path=str(path.resolve()), key=picture_key)

    def finish(
        self,
        status: str,
        ended: float,
        learnt: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> None:
        """End the run as FINISHED, FAILED or KILLED.

        ended: in seconds since the epoch.
        learnt: the facts that are known only after the run, for its record.json.
        outputs: the digests of the latents by node, for its record.json.
        """
        self.tracker.send(
            "finish", self.number, status=status, time=ended, learnt=dict(learnt or {}), outputs=dict(outputs or {})
        )

    def wait(self) -> MLflowRun:
        """Wait until the record of the run is complete; `finish` must have been called. Raises TrackingError."""
        return self.tracker.wait_for(self.number)
