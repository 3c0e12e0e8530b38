"""The MLflow record, seen from the run: messages to a process beside it that does the writing.

Importing mlflow takes seconds, and so do the migrations of a new SQLite store; in a process of its own both happen
while ComfyUI starts, hold up no sampling, and keep mlflow's threads and global state out of the process that holds
the GPU. If this process dies without a word, the writer notices and marks its runs KILLED.
"""

from __future__ import annotations

import atexit
import logging
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import RecordError, TrackingError
from pipeline.file_state import FileState
from pipeline.record.artifacts import RECORD
from pipeline.record.provenance import RecordedRun, read_record
from pipeline.record.writer.store import UNSENT, is_server
from pipeline.record.writer_process import WriterProcess

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackingSettings:
    """The `tracking` section of the config.

    uri: an MLflow tracking URI; a relative sqlite path is relative to the working directory; null: no record.
    experiment_name: the MLflow experiment; made if it does not exist.
    system_metrics: whether MLflow logs what CPU, memory, disk, network and GPUs do during each run.
    """

    uri: str | None = None
    experiment_name: str | None = None
    system_metrics: bool = False


@dataclass(frozen=True)
class NewRun:
    """What a record begins with.

    folder: where the files of the run lie, in sub-folders or not; their place in it is their name in MLflow.
    identity, files, inputs: what the results follow from (key, model files and other files by dotted path), by which
    another sweep finds the run; an empty identity: it is not found, and has no record.json.
    facts: those of its record.json.
    axes, kept: of a sweep, the settings that differ between the runs below it, and the nodes whose latents they keep.
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
    """Where a run is in MLflow. `uri` is the store that has it: one at hand if the server was out of reach."""

    run_id: str
    experiment_id: str
    uri: str


@dataclass(frozen=True)
class FinishedRun:
    """A run that is recorded and need not run again. `metrics` has the last value of each."""

    run_id: str
    metrics: Mapping[str, float]


class Tracker:
    """A connection to one writer process, which lives until this process ends.

    What is told to it is written in the order of telling, while this process goes on. One thread tells; another may
    wait for what was told. After a failure of the writer `failed` is true and all methods, those of its runs as well,
    raise TrackingError; another tracker may fare better.
    """

    def __init__(self, settings: TrackingSettings):
        self._settings = settings
        self._count = 0
        self._finished: dict[int, MLflowRun] = {}
        self._lost: dict[int, str] = {}
        self._is_open = False
        self.failed = False
        self._writer = WriterProcess()
        self._reading = threading.Lock()  # or one thread would take what another waits for
        atexit.register(self.close)
        self._send(
            "open", uri=settings.uri, experiment=settings.experiment_name, system_metrics=settings.system_metrics
        )

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

    def find_finished(self, wanted: Sequence[tuple[str, Mapping[str, FileState]]]) -> list[FinishedRun | None]:
        """For each identity (key and files) a FINISHED run whose artifacts are intact, or None."""
        plain = [(key, {where: astuple(state) for where, state in files.items()}) for key, files in wanted]
        return [FinishedRun(**found) if found else None for found in self._ask("find", "found", wanted=plain)]

    def explain_missing(
        self, name: str, cell: str, facts: Mapping[str, str], files: Mapping[str, FileState]
    ) -> tuple[list[str], int]:
        """Return why no run was found for an identity although one of its cell is recorded, the likeliest cause first;
        and, if none is, how many runs of this name have records too old to vouch for their results."""
        plain = {where: astuple(state) for where, state in files.items()}
        answer = self._ask("explain", "explained", name=name, cell=cell, facts=dict(facts), files=plain)
        return list(answer["reasons"]), int(answer["older"])

    def recall(self, count: int) -> list[dict[str, Any]]:
        """The `params` and `metrics` of the runs that finished last, the latest first."""
        return list(self._ask("recall", "recalled", count=count))

    def list_runs(self, experiment: str, count: int) -> list[dict[str, Any]]:
        """The latest runs of an experiment, whatever their status: `run_id`, `name`, `status`, `params`, `metrics` and
        `artifact_uri` of each; none if there is no such experiment."""
        return list(self._ask("list", "listed", experiment=experiment, count=count))

    def find_leftovers(self) -> dict[str, list[Any]]:
        """What the store should not have: see `Leftovers.find`."""
        return dict(self._ask("survey", "surveyed"))

    def remove_leftovers(self, orphans: Sequence[str], broken: Sequence[str]) -> None:
        """Remove folders of artifacts, and runs by their ids, that `find_leftovers` found."""
        self._ask("remove", "removed", orphans=list(orphans), broken=list(broken))

    def read(self, run_id: str, folder: Path) -> RecordedRun:
        """What is recorded of a run, with its files in `folder`. Raises RecordError."""
        answer = self._ask("read", "read", run_id=run_id, folder=str(folder.resolve()))
        if "error" in answer:
            raise RecordError(f"run {run_id}: cannot be read from {self._settings.uri}: {answer['error']}")
        record = read_record((folder / RECORD).read_bytes()) if answer.pop("is_whole") else None
        return RecordedRun(**{**answer, "children": tuple(answer["children"])}, folder=folder, record=record)

    def read_artifact(self, run_id: str, name: str) -> str:
        """The text of an artifact of a run, finished or not. Raises RecordError."""
        text, reason = self._ask("fetch", "fetched", run_id=run_id, name=name)
        if text is None:
            raise RecordError(f"run {run_id}: {name} cannot be read from {self._settings.uri}: {reason}")
        return str(text)

    def list_unsent(self) -> list[dict[str, str]]:
        """`run_id`, `name` and `status` of the runs at hand that can be sent to the server, in the order in which to
        send them. Raises RecordError if it is out of reach."""
        found = self._ask("list_unsent", "unsent")
        if found is None:
            raise RecordError(f"tracking.uri: {self._settings.uri!r} is out of reach, so nothing was sent")
        return list(found)

    def send_unsent(self, run_id: str) -> str:
        """Send one of them; its id on the server. Raises RecordError, and the run stays at hand."""
        answer = self._ask("send", "sent", run_id=run_id)
        if "error" in answer:
            raise RecordError(f"run {run_id}: could not be sent to {self._settings.uri}: {answer['error']}")
        return str(answer["run_id"])

    def link(self, name: str, source: str, folder: Path, linked: float, parent: TrackedRun | None) -> TrackedRun:
        """Put the files of the finished run `source` into `folder`, and record there and in MLflow that they are its
        results. Nothing is to be told to the new run."""
        return self._begin("link", parent, name=name, source=source, folder=str(folder.resolve()), time=linked)

    def wait_for(self, number: int) -> MLflowRun:
        """Wait until the record of a finished run is complete.

        Raises TrackingError, and goes on, if the server went out of reach with the run that was to be linked.
        """
        with self._reading:
            while number not in self._finished and number not in self._lost:
                self._take(self._writer.receive())
        if number in self._lost:
            raise TrackingError(f"tracking.uri: {self._settings.uri!r} went out of reach: {self._lost[number]}")
        return self._finished[number]

    def send(self, what: str, run: int, **content: Any) -> None:
        """Tell the writer of a run."""
        self._send(what, run, **content)

    def raise_if_failed(self) -> None:
        """Raise TrackingError if the writer has failed by now. Waits for a server only, until it has let us in: it may
        refuse us, and nothing is to be computed before we know."""
        if not self._reading.acquire(blocking=False):
            return  # another thread waits for answers, and takes this one too
        try:
            while is_server(str(self._settings.uri)) and not self._is_open:
                self._take(self._writer.receive())
            while answer := self._writer.receive_waiting():
                self._take(answer)
        finally:
            self._reading.release()

    def close(self) -> None:
        """Let the writer finish and end. Idempotent."""
        atexit.unregister(self.close)
        self._writer.close(wait=self._count > 0)  # else it will end by itself once mlflow is imported

    def _begin(self, what: str, parent: TrackedRun | None, **content: Any) -> TrackedRun:
        self._count += 1
        above = parent.number if parent else None
        self._send(what, self._count, record=uuid.uuid4().hex, parent=above, **content)
        return TrackedRun(self, self._count)

    def _ask(self, what: str, expected: str, **content: Any) -> Any:
        """Tell the writer something, and wait for what it says is `expected`."""
        self._send(what, **content)
        with self._reading:
            while True:
                answer = self._writer.receive()
                if expected in answer:
                    return answer[expected]
                self._take(answer)

    def _take(self, answer: dict[str, Any]) -> None:
        """Keep what the writer says without being asked, or of a run."""
        self._raise_if_failed(answer)
        if "opened" in answer:
            self._is_open = True
        elif "out_of_reach" in answer:
            log.warning(
                "tracking.uri: %s is out of reach, so runs are kept in %s; later, send them with: "
                "python -m pipeline sync tracking.uri=%s\n  %s",
                *(self._settings.uri, UNSENT, self._settings.uri, answer["out_of_reach"]),
            )
        elif "lost" in answer:
            self._lost[answer["lost"]] = answer["reason"]
        else:
            self._finished[answer["finished"]] = MLflowRun(answer["run_id"], answer["experiment_id"], answer["uri"])

    def _send(self, what: str, run: int | None = None, **content: Any) -> None:
        message = {"do": what, **({} if run is None else {"run": run}), **content}
        try:
            self._writer.send(message)
        except (BrokenPipeError, ValueError):
            self._wait_for_failure()

    def _wait_for_failure(self) -> None:
        """The writer is gone; its last answer says why."""
        with self._reading:
            while True:
                self._raise_if_failed(self._writer.receive())

    def _raise_if_failed(self, answer: Mapping[str, Any]) -> None:
        if "error" not in answer:
            return
        self._writer.put_back(answer)  # every later call fails in the same way
        self.failed = True
        raise TrackingError(
            f"tracking.uri: MLflow at {self._settings.uri!r} failed: {answer['error']}\n"
            "Check tracking.uri, or run without a record: tracking=none"
        )


@dataclass(frozen=True)
class TrackedRun:
    """A run that a tracker has begun. It stands RUNNING in MLflow until `finish`."""

    tracker: Tracker
    number: int

    def log(self, metrics: Sequence[tuple[str, float, float, int]] = (), tags: Mapping[str, str] | None = None) -> None:
        """Add metrics (key, value, seconds since the epoch, step) and tags."""
        self.tracker.send("log", self.number, metrics=list(metrics), tags=dict(tags or {}))

    def add_file(self, path: Path, picture_key: str | None = None) -> None:
        """Add a file as an artifact; a picture with a key is also shown by MLflow's comparison of runs."""
        self.tracker.send("file", self.number, path=str(path.resolve()), key=picture_key)

    def finish(
        self,
        status: str,
        ended: float,
        learnt: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> None:
        """End the run as FINISHED, FAILED or KILLED. `learnt` are facts that only the run has shown, `outputs` the
        content of the kept latents by node; both are for its record.json."""
        self.tracker.send(
            "finish", self.number, status=status, time=ended, learnt=dict(learnt or {}), outputs=dict(outputs or {})
        )

    def wait(self) -> MLflowRun:
        """Wait until the record of the run is complete; `finish` must have been called."""
        return self.tracker.wait_for(self.number)
