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
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote

from pipeline.cache_folder import cache_folder
from pipeline.file_state import FileState
from pipeline.record import provenance
from pipeline.record.artifacts import write_record
from pipeline.record.file_hashes import FileHashes, hash_file
from pipeline.record.finished_runs import IDENTITY, FinishedRuns
from pipeline.record.leftovers import Leftovers
from pipeline.record.note import NOTE
from pipeline.record.orphans import WRITER, end_orphans, end_run, name_writer
from pipeline.record.run_page import RunPages

SQLITE = "sqlite:///"
PARAM_LENGTH = 6000  # MLflow's limit

LINKED = "linked_run_id"  # the tag of a run that was not run again: the run whose results these are
TAKEN = {"mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", NOTE}
COSTS = ("seconds", "memory/", "system/")  # metrics of the run that computed, not of its results

# Without it MLflow 3 guesses that an experiment is about generative text, and shows other pages.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


@dataclass
class OpenRun:
    """A run that stands RUNNING in MLflow.

    record: the beginning of its record.json; hash_files: the `files` of that; artifacts: the sha256 of what is kept of
    it so far; pictures: which of that MLflow's comparison shows, and under which name.
    """

    run_id: str
    folder: Path
    record: dict[str, Any]
    hash_files: Callable[[], dict[str, Any]]
    artifacts: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


class Writer:
    """Carries the messages out."""

    def __init__(self) -> None:
        self._client: Any = None
        self._experiment_id = ""
        self._open: dict[int, OpenRun] = {}  # by the numbers of the messages
        self._hashes = FileHashes(cache_folder())

    def handle(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Carry out one message; returns the answer, if the message wants one."""
        action: Callable[..., Any] = getattr(self, f"do_{message.pop('do')}")
        return action(**message)

    def do_open(self, uri: str, experiment: str | None, system_metrics: bool) -> None:
        """Connect to the store, making it and the experiment if need be."""
        with _locked(uri), contextlib.ExitStack() as stack:
            stack.callback(_stand_back, 0)
            from mlflow import MlflowClient
            from mlflow.entities import ViewType
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
        self._finished = FinishedRuns(self._client, self._experiment_id, self._hashes)
        self._pages = RunPages(self._client, uri, self._experiment_id, system_metrics)
        self._leftovers = Leftovers(self._client, self._finished, ViewType.ALL)
        end_orphans(self._client, self._experiment_id)

    def do_start(
        self,
        run: int,
        name: str,
        params: dict[str, str],
        tags: dict[str, str],
        time: float,
        parent: int | None,
        folder: str,
        identity: str,
        files: dict[str, list[Any]],
        inputs: dict[str, list[Any]],
        facts: dict[str, str],
        axes: list[str],
        kept: list[str],
    ) -> None:
        """Begin a run; the hashes of its files are found in the background."""
        models, others = read_states(files), read_states(inputs)
        for state in (*models.values(), *others.values()):
            self._hashes.begin(state)

        def hash_files() -> dict[str, Any]:
            return {
                **{where: provenance.write_file(one, self._hashes.get(one), "model") for where, one in models.items()},
                **{where: provenance.write_file(one, self._hashes.get(one), "input") for where, one in others.items()},
            }

        made = self._create(name, params, tags, time, parent)
        self._open[run] = OpenRun(made, Path(folder), provenance.begin_record(identity, facts), hash_files)
        self._pages.begin(made, tags, axes, kept)

    def do_log(self, run: int, metrics: list[list[Any]], tags: dict[str, str]) -> None:
        """Add metrics (key, value, seconds since the epoch, step) and tags."""
        from mlflow.entities import Metric, RunTag

        entities = [Metric(_make_key(key), value, _milliseconds(time), step) for key, value, time, step in metrics]
        self._client.log_batch(
            self._open[run].run_id, metrics=entities, tags=[RunTag(key, value) for key, value in tags.items()]
        )

    def do_file(self, run: int, path: str, key: str | None) -> None:
        """Add a file of the run's folder; a picture with a key is also shown by MLflow's comparison of runs."""
        ours = self._open[run]
        name = Path(path).relative_to(ours.folder).as_posix()
        self._client.log_artifact(ours.run_id, path, name.rpartition("/")[0] or None)
        ours.artifacts[name] = hash_file(Path(path))
        if key:
            from PIL import Image

            ours.pictures[name] = key
            with Image.open(path) as picture:
                self._client.log_image(ours.run_id, picture.convert("RGB"), key=_make_key(key), step=0)

    def do_finish(
        self, run: int, status: str, time: float, learnt: dict[str, str], outputs: dict[str, str]
    ) -> dict[str, Any]:
        """End a run. One that FINISHED can be found by its identity from now on."""
        ours, record = self._open[run], None
        if status == "FINISHED" and ours.record["identity"]:
            provenance.add_learnt(ours.record, learnt, outputs)
            record = {**ours.record, "files": ours.hash_files()}
            record |= {"artifacts": ours.artifacts, "pictures": ours.pictures}
            self._client.log_artifact(ours.run_id, str(write_record(ours.folder, record)))
            self._client.set_tag(ours.run_id, IDENTITY, ours.record["identity"])
        self._pages.finish(ours.run_id, ours.folder, ours.artifacts, record)
        self._client.set_terminated(ours.run_id, status, _milliseconds(time))
        del self._open[run]
        return {"finished": run, "run_id": ours.run_id, "experiment_id": self._experiment_id}

    def do_find(self, wanted: list[list[Any]]) -> dict[str, Any]:
        """For each identity (key and model files) a finished run, or None."""
        return {"found": [self._finished.find(identity, read_states(files)) for identity, files in wanted]}

    def do_recall(self, count: int) -> dict[str, Any]:
        """The params and metrics of the runs that finished last."""
        return {"recalled": self._finished.recall(count)}

    def do_list(self, experiment: str, count: int) -> dict[str, Any]:
        """The latest runs of an experiment, whatever their status."""
        return {"listed": self._finished.list_runs(experiment, count)}

    def do_survey(self) -> dict[str, Any]:
        """What the store should not have."""
        return {"surveyed": self._leftovers.find()}

    def do_remove(self, orphans: list[str], broken: list[str]) -> dict[str, Any]:
        """Remove leftovers that were found before."""
        self._leftovers.remove(orphans, broken)
        return {"removed": True}

    def do_read(self, run_id: str, folder: str) -> dict[str, Any]:
        """All that is recorded of a run, with its files in `folder`; or why it cannot be read."""
        try:
            return {"read": self._finished.read(run_id, Path(folder))}
        except Exception as error:  # an unknown id, or whatever a store raises for what it no longer has
            return {"read": {"error": f"{error}"}}

    def do_fetch(self, run_id: str, name: str) -> dict[str, Any]:
        """The text of an artifact, and why there is none."""
        with tempfile.TemporaryDirectory(prefix="latentgrid-") as folder:
            try:
                path = self._client.download_artifacts(run_id, name, folder)
                return {"fetched": [Path(path).read_text(encoding="utf-8"), ""]}
            except Exception as error:  # whatever a store raises for what it does not have
                return {"fetched": [None, str(error)]}

    def do_link(self, run: int, name: str, source: str, time: float, parent: int | None, folder: str) -> dict[str, Any]:
        """Take a finished run over: its files into `folder`, and a record of its own that names it."""
        record, told = self._finished.fetch(source, Path(folder)), self._client.get_run(source).data
        tags = {key: value for key, value in told.tags.items() if key in TAKEN or not key.startswith("mlflow.")}
        tags[LINKED] = tags.get(LINKED, source)
        del tags[IDENTITY]  # set when the new record is whole
        made = self._create(name, told.params, tags, time, parent)
        self._open[run] = OpenRun(made, Path(folder), dict(record), lambda: record["files"])
        self._pages.begin_taken(made, tags, tags[LINKED])
        results = {key: value for key, value in told.metrics.items() if not key.startswith(COSTS)}
        self.do_log(run, [[key, value, time, 0] for key, value in results.items()], {})
        for path in record["artifacts"]:
            self.do_file(run, str(Path(folder, path)), record["pictures"].get(path))
        return self.do_finish(run, "FINISHED", time, {}, {})

    def close(self, status: str = "KILLED", error: str = "the process that ran it died without a word") -> None:
        """End the runs that are still open."""
        for ours in self._open.values():
            end_run(self._client, ours.run_id, status, error)
        self._open.clear()

    def _create(
        self, name: str, params: Mapping[str, str], tags: Mapping[str, str], time: float, parent: int | None
    ) -> str:
        from mlflow.entities import Param
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        above = {MLFLOW_PARENT_RUN_ID: self._open[parent].run_id} if parent else {}
        run = self._client.create_run(
            self._experiment_id,
            start_time=_milliseconds(time),
            run_name=name,
            tags={**tags, WRITER: name_writer(), **above},
        )
        entities = [Param(_make_key(key), value[:PARAM_LENGTH]) for key, value in params.items()]
        self._client.log_batch(run.info.run_id, params=entities)
        return str(run.info.run_id)


def read_states(files: Mapping[str, list[Any]]) -> dict[str, FileState]:
    """The model files of a message."""
    return {where: FileState(*state) for where, state in files.items()}


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
                with contextlib.suppress(BrokenPipeError):  # killed; what it told is written all the same
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
