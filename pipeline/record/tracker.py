"""The MLflow record, seen from the run: messages to a process beside it that does the writing.

Importing mlflow takes seconds, and so do the migrations of a new SQLite store; in a process of its own both happen
while ComfyUI starts, hold up no sampling, and keep mlflow's threads and global state out of the process that holds
the GPU. If this process dies without a word, the writer notices and marks its runs KILLED.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from pipeline.errors import TrackingError

WRITER = "pipeline.record.mlflow_writer"


@dataclass(frozen=True)
class TrackingSettings:
    """The `tracking` section of the config.

    uri: an MLflow tracking URI; a relative sqlite path is relative to the working directory; null: no record.
    experiment_name: the MLflow experiment; made if it does not exist.
    """

    uri: str | None = None
    experiment_name: str | None = None


@dataclass(frozen=True)
class MLflowRun:
    """Where a run is in MLflow."""

    run_id: str
    experiment_id: str


class Tracker:
    """A connection to one writer process, which lives until this process ends.

    Methods return at once, except `finish`, which waits until the record is complete. After a failure of the
    writer `failed` is true and every method raises TrackingError; another tracker may fare better.
    """

    def __init__(self, settings: TrackingSettings):
        self._settings = settings
        self._has_runs = False
        self._finishes = 0
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
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._listener = threading.Thread(target=self._listen, name="latentgrid-tracker", daemon=True)
        self._listener.start()
        atexit.register(self.close)
        self._send("open", uri=settings.uri, experiment=settings.experiment_name)

    def start(self, name: str, params: Mapping[str, str], tags: Mapping[str, str], started: float) -> None:
        """Begin a run; `started` is in seconds since the epoch. It stands RUNNING in MLflow until `finish`."""
        self._has_runs = True
        self._send("start", name=name, params=dict(params), tags=dict(tags), time=started)

    def log(self, metrics: Sequence[tuple[str, float, float, int]] = (), tags: Mapping[str, str] | None = None) -> None:
        """Add metrics (key, value, seconds since the epoch, step) and tags to the run."""
        self._send("log", metrics=list(metrics), tags=dict(tags or {}))

    def add_file(self, path: Path, picture_key: str | None = None) -> None:
        """Add a file as an artifact; a picture with a key is also shown by MLflow's comparison of runs."""
        self._send("file", path=str(path.resolve()), key=picture_key)

    def finish(self, status: str, ended: float) -> MLflowRun:
        """End the run as FINISHED, FAILED or KILLED, and wait until its record is complete."""
        self._finishes += 1
        self._send("finish", number=self._finishes, status=status, time=ended)
        while True:
            answer = self._answers.get()
            self._raise_if_failed(answer)
            if answer.get("finished") == self._finishes:  # not the late answer to a wait that was interrupted
                return MLflowRun(answer["run_id"], answer["experiment_id"])

    def raise_if_failed(self) -> None:
        """Raise TrackingError if the writer has failed by now; does not wait."""
        try:
            self._raise_if_failed(self._answers.get_nowait())
        except Empty:
            return

    def close(self) -> None:
        """Let the writer finish and end. Idempotent."""
        atexit.unregister(self.close)
        if self._writer.stdin and not self._writer.stdin.closed:
            self._writer.stdin.close()
        if self._has_runs:  # else it has nothing to say, and will end by itself once mlflow is imported
            self._listener.join()

    def _send(self, what: str, **content: Any) -> None:
        assert self._writer.stdin is not None
        try:
            self._writer.stdin.write(json.dumps({"do": what, **content}) + "\n")
            self._writer.stdin.flush()
        except (BrokenPipeError, ValueError):
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


def _python_path() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH")] if path]
