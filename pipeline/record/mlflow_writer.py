"""The process that writes records to MLflow: the only importer of mlflow.

Reads one JSON message a line from its standard input, in order, and answers on its standard output; the messages
are those that `Tracker` sends. When the input ends while a run is still open, the process that ran it died, and
the run is marked KILLED: a record never claims that something runs which does not.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote

SQLITE = "sqlite:///"
PARAM_LENGTH = 6000  # MLflow's limit

# Without it MLflow 3 guesses that an experiment is about generative text, and shows other pages.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class Writer:
    """Carries the messages out."""

    def __init__(self) -> None:
        self._client: Any = None
        self._experiment_id = ""
        self._run_id: str | None = None
        self._start: Callable[[], None] = lambda: None

    def handle(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Carry out one message; returns the answer, if the message wants one."""
        action: Callable[..., Any] = getattr(self, f"do_{message.pop('do')}")
        return action(**message)

    def do_open(self, uri: str, experiment: str | None) -> None:
        """Connect to the store, making it and the experiment if need be."""
        with _locked(uri), contextlib.ExitStack() as stack:
            stack.callback(_stand_back, 0)
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

            self._client = MlflowClient(tracking_uri=uri)
            name = experiment or "Default"
            found = self._client.get_experiment_by_name(name)
            if found is None:
                try:
                    self._experiment_id = self._client.create_experiment(name, _artifact_location(uri), EXPERIMENT_TAGS)
                except MlflowException:  # made by another process in this moment
                    found = self._client.get_experiment_by_name(name)
            if found is not None:
                self._experiment_id = found.experiment_id

    def do_start(self, name: str, params: dict[str, str], tags: dict[str, str], time: float) -> None:
        run = self._client.create_run(self._experiment_id, start_time=_milliseconds(time), run_name=name, tags=tags)
        self._run_id = run.info.run_id
        from mlflow.entities import Param

        entities = [Param(_make_key(key), value[:PARAM_LENGTH]) for key, value in params.items()]
        self._client.log_batch(self._run_id, params=entities)

    def do_log(self, metrics: list[list[Any]], tags: dict[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        entities = [Metric(_make_key(key), value, _milliseconds(time), step) for key, value, time, step in metrics]
        self._client.log_batch(self._run_id, metrics=entities, tags=[RunTag(key, value) for key, value in tags.items()])

    def do_file(self, path: str, key: str | None) -> None:
        self._client.log_artifact(self._run_id, path)
        if key:
            from PIL import Image

            with Image.open(path) as picture:
                self._client.log_image(self._run_id, picture.convert("RGB"), key=_make_key(key), step=0)

    def do_finish(self, number: int, status: str, time: float) -> dict[str, Any]:
        self._client.set_terminated(self._run_id, status, _milliseconds(time))
        answer = {"run_id": self._run_id, "experiment_id": self._experiment_id}
        self._run_id = None
        return {"finished": number, **answer}

    def close(self, status: str = "KILLED", error: str = "the process that ran it died without a word") -> None:
        """End a run that is still open."""
        if self._run_id is not None:
            self._client.set_tag(self._run_id, "error", error)
            self._client.set_terminated(self._run_id, status, _milliseconds(time.time()))
            self._run_id = None


def _stand_back(level: int) -> None:
    """Set the nice level of this process's session. Linux schedules sessions as groups, so os.nice has no effect."""
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(level))


@contextlib.contextmanager
def _locked(uri: str) -> Iterator[None]:
    """Several processes that open a new SQLite store at once would race on its migrations."""
    if not uri.startswith(SQLITE):
        yield
        return
    from filelock import FileLock

    database = Path(unquote(uri.removeprefix(SQLITE).split("?")[0]))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        yield


def _artifact_location(uri: str) -> str | None:
    """Artifacts lie beside a SQLite store; a server decides for itself."""
    if not uri.startswith(SQLITE):
        return None
    database = Path(unquote(uri.removeprefix(SQLITE).split("?")[0])).resolve()
    return (database.parent / "mlartifacts").as_uri()


def _make_key(name: str) -> str:
    """A name that MLflow takes as a key: packs use characters in the names of inputs that it refuses."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)[:250]


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def main(messages: TextIO, answers: TextIO) -> None:
    """Carry out messages until they end; after a failure, say so and carry out no more."""
    writer = Writer()
    try:
        for line in messages:
            answer = writer.handle(json.loads(line))
            if answer is not None:
                print(json.dumps(answer), file=answers, flush=True)
        writer.close()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        with contextlib.suppress(Exception):  # what failed may well fail again
            writer.close("FAILED", f"its record could not be written: {text}")
        print(json.dumps({"error": text}), file=answers, flush=True)
        raise


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that runs the nodes decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _stand_back(19)  # until the store is open: importing and migrating takes seconds that the first sample needs more
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever mlflow prints is no answer
    main(sys.stdin, answers)
