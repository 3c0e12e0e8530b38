"""The MLflow record, seen from the run: messages to a process beside it that does the writing.

Importing mlflow takes seconds, and so do the migrations of a new SQLite store; in a process of its own both happen
while ComfyUI starts, hold up no sampling, and keep mlflow's threads and global state out of the process that holds
the GPU. If this process dies without a word, the writer notices and marks its runs KILLED.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from pipeline.errors import RecordError, TrackingError
from pipeline.file_state import FileState
from pipeline.record.artifacts import RECORD
from pipeline.record.provenance import RecordedRun, read_record

WRITER = "pipeline.record.mlflow_writer"
PIPE_BYTES = 1 << 20


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
    identity, files: what the results follow from (key, and model files by dotted path), by which another sweep finds
    the run; an empty identity: it is not found, and has no record.json.
    inputs, facts: the other files and the facts of its record.json.
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
    """Where a run is in MLflow."""

    run_id: str
    experiment_id: str


@dataclass(frozen=True)
class FinishedRun:
    """A run that is recorded and need not run again. `metrics` has the last value of each."""

    run_id: str
    metrics: Mapping[str, float]


class Tracker:
    """A connection to one writer process, which lives until this process ends.

    What is told to it is written in the order of telling, while this process goes on. After a failure of the writer
    `failed` is true and all methods, those of its runs as well, raise TrackingError; another tracker may fare better.
    """

    def __init__(self, settings: TrackingSettings):
        self._settings = settings
        self._count = 0
        self._finished: dict[int, MLflowRun] = {}
        self.failed = False
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (the writer's, as long as it lives)
        self._writer = subprocess.Popen(
            [sys.executable, "-m", WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path.cwd(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *_python_path()])},
            start_new_session=True,  # Ctrl-C in the terminal is for us; the writer ends when we have told it all
        )
        _widen(self._writer.stdin)
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._listener = threading.Thread(target=self._listen, name="latentgrid-tracker", daemon=True)
        self._listener.start()
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
        """For each identity (key and model files) a FINISHED run whose artifacts are intact, or None."""
        plain = [(key, {where: astuple(state) for where, state in files.items()}) for key, files in wanted]
        return [FinishedRun(**found) if found else None for found in self._ask("find", "found", wanted=plain)]

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
        """The text of an artifact of a run. Raises TrackingError if MLflow has none, and goes on."""
        text, reason = self._ask("fetch", "fetched", run_id=run_id, name=name)
        if text is None:
            raise TrackingError(f"MLflow at {self._settings.uri!r} gives no {name} of run {run_id}: {reason}")
        return str(text)

    def link(self, name: str, source: str, folder: Path, linked: float, parent: TrackedRun | None) -> TrackedRun:
        """Put the files of the finished run `source` into `folder`, and record there and in MLflow that they are its
        results. Nothing is to be told to the new run."""
        return self._begin("link", parent, name=name, source=source, folder=str(folder.resolve()), time=linked)

    def wait_for(self, number: int) -> MLflowRun:
        """Wait until the record of a finished run is complete."""
        while number not in self._finished:
            self._take(self._answers.get())
        return self._finished[number]

    def send(self, what: str, run: int, **content: Any) -> None:
        """Tell the writer of a run."""
        self._send(what, run, **content)

    def raise_if_failed(self) -> None:
        """Raise TrackingError if the writer has failed by now; does not wait."""
        with contextlib.suppress(Empty):
            while True:
                self._take(self._answers.get_nowait())

    def close(self) -> None:
        """Let the writer finish and end. Idempotent."""
        atexit.unregister(self.close)
        if self._writer.stdin and not self._writer.stdin.closed:
            self._writer.stdin.close()
        if self._count:  # else it has nothing to say, and will end by itself once mlflow is imported
            self._listener.join()

    def _begin(self, what: str, parent: TrackedRun | None, **content: Any) -> TrackedRun:
        self._count += 1
        self._send(what, self._count, parent=parent.number if parent else None, **content)
        return TrackedRun(self, self._count)

    def _ask(self, what: str, expected: str, **content: Any) -> Any:
        """Tell the writer something, and wait for what it says is `expected`."""
        self._send(what, **content)
        while True:
            answer = self._answers.get()
            if expected in answer:
                return answer[expected]
            self._take(answer)

    def _take(self, answer: dict[str, Any]) -> None:
        """Keep what the writer says of a run."""
        self._raise_if_failed(answer)
        self._finished[answer["finished"]] = MLflowRun(answer["run_id"], answer["experiment_id"])

    def _send(self, what: str, run: int | None = None, **content: Any) -> None:
        assert self._writer.stdin is not None
        message = {"do": what, **({} if run is None else {"run": run}), **content}
        try:
            self._writer.stdin.write(json.dumps(message) + "\n")
            self._writer.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._wait_for_failure()

    def _wait_for_failure(self) -> None:
        """The writer is gone; its last answer says why."""
        while True:
            self._raise_if_failed(self._answers.get())

    def _listen(self) -> None:
        assert self._writer.stdout is not None
        with self._writer.stdout as answers, self._log:
            for line in answers:
                self._answers.put(json.loads(line))
            self._writer.wait()
            self._answers.put({"error": f"the process that writes to it ended{self._read_log()}"})

    def _raise_if_failed(self, answer: Mapping[str, Any]) -> None:
        if "error" not in answer:
            return
        self._answers.put(dict(answer))  # every later call fails in the same way
        self.failed = True
        raise TrackingError(
            f"tracking.uri: MLflow at {self._settings.uri!r} failed: {answer['error']}\n"
            "Check tracking.uri, or run without a record: tracking=none"
        )

    def _read_log(self) -> str:
        self._log.seek(0)
        return "\n" + self._log.read()[-2000:].decode(errors="replace")


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


def _widen(pipe: Any) -> None:
    """Let a pipe hold what a hundred runs say, so that a slow store holds up no sampling.

    What is in it is written even if this process is killed.
    """
    with contextlib.suppress(ImportError, OSError):  # elsewhere than on Linux, or where the user has too many of them
        from fcntl import F_SETPIPE_SZ, fcntl

        fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)


def _python_path() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH")] if path]
