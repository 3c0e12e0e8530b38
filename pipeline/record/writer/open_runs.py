"""The runs that stand RUNNING in an MLflow store, and what is added to them until they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base.file_hashes import FileHashes
from pipeline.base.file_state import FileState, hash_file
from pipeline.record import provenance
from pipeline.record.artifacts import write_record
from pipeline.record.note import NOTE
from pipeline.record.writer.finished_runs import IDENTITY, FinishedRuns
from pipeline.record.writer.keys import make_key, make_picture_key
from pipeline.record.writer.orphans import ERROR, WRITER, end_run, name_writer
from pipeline.record.writer.run_page import RunPages
from pipeline.record.writer.store import Store

PARAM_LENGTH = 6000  # MLflow's limit

RECORD_ID = "record_id"  # the tag that tells whether a store has a record already; given before there is a run id
LINKED = "linked_run_id"  # the tag of a run that was not run again: the run whose results these are
IMAGES = "images"  # where MLflow puts the pictures of its comparison, under new names each time
TAKEN = {"mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", NOTE}
COSTS = ("seconds", "memory/", "system/")  # metrics of the run that computed, not of its results


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


class OpenRuns:
    """Begins and ends runs in one store; `start`, `link`, `log`, `file` and `finish` carry out messages of a `Tracker`.

    `run` is the number of a run in the messages, `record` what the store's tag RECORD_ID is to be. `again` says that
    another writer may have begun the run: what the store has of it is completed.
    """

    def __init__(self, store: Store, hashes: FileHashes, system_metrics: bool):
        self._client = store.client
        self._experiment_id = store.experiment_id
        self._hashes = hashes
        self._finished = FinishedRuns(store.client, store.experiment_id, hashes)
        self._pages = RunPages(store, system_metrics)
        self._uri = store.uri
        self._open: dict[int, OpenRun] = {}

    def start(
        self,
        run: int,
        record: str,
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
        again: bool = False,
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

        made = self._create(record, name, params, tags, time, parent, again)
        self._open[run] = OpenRun(made, Path(folder), provenance.begin_record(identity, facts), hash_files)
        self._pages.begin(made, tags, axes, kept)

    def link(
        self,
        run: int,
        record: str,
        name: str,
        source: str,
        time: float,
        parent: int | None,
        folder: str,
        again: bool = False,
    ) -> dict[str, Any]:
        """Take a finished run over: its files into `folder`, and a record of its own that names it."""
        found, told = self._finished.fetch(source, Path(folder)), self._client.get_run(source).data
        tags = {key: value for key, value in told.tags.items() if key in TAKEN or not key.startswith("mlflow.")}
        tags[LINKED] = tags.get(LINKED, source)
        del tags[IDENTITY]  # set when the new record is whole
        made = self._create(record, name, told.params, tags, time, parent, again)
        self._open[run] = OpenRun(made, Path(folder), dict(found), lambda: found["files"])
        self._pages.begin_taken(made, tags, tags[LINKED])
        results = {key: value for key, value in told.metrics.items() if not key.startswith(COSTS)}
        self.log(run, [[key, value, time, 0] for key, value in results.items()], {})
        for path in found["artifacts"]:
            self.file(run, str(Path(folder, path)), found["pictures"].get(path))
        return self.finish(run, "FINISHED", time, {}, {})

    def log(self, run: int, metrics: list[list[Any]], tags: dict[str, str]) -> None:
        """Add metrics (key, value, seconds since the epoch, step) and tags."""
        from mlflow.entities import Metric, RunTag

        entities = [Metric(make_key(key), value, _milliseconds(time), step) for key, value, time, step in metrics]
        self._client.log_batch(
            self._open[run].run_id, metrics=entities, tags=[RunTag(key, value) for key, value in tags.items()]
        )

    def file(self, run: int, path: str, key: str | None) -> None:
        """Add a file of the run's folder; a picture with a key is also shown by MLflow's comparison of runs."""
        ours = self._open[run]
        name = Path(path).relative_to(ours.folder).as_posix()
        self._client.log_artifact(ours.run_id, path, name.rpartition("/")[0] or None)
        ours.artifacts[name] = hash_file(Path(path))
        if key:
            from PIL import Image

            ours.pictures[name] = key
            with Image.open(path) as picture:
                self._client.log_image(ours.run_id, picture.convert("RGB"), key=make_picture_key(key), step=0)

    def finish(
        self, run: int, status: str, time: float, learnt: dict[str, str], outputs: dict[str, str]
    ) -> dict[str, Any]:
        """End a run. One that FINISHED, and kept all that it was asked for, is found by its identity from now on."""
        ours, record = self._open[run], None
        if status == "FINISHED" and ours.record["identity"]:
            provenance.add_learnt(ours.record, learnt, outputs)
            record = {**ours.record, "files": ours.hash_files()}
            record |= {"artifacts": ours.artifacts, "pictures": ours.pictures}
            self._client.log_artifact(ours.run_id, str(write_record(ours.folder, record)))
            # Not found by a sweep that goes on if an output was lost, but it has a record all the same.
            lost = " incomplete" if "not_kept" in learnt else ""
            self._client.set_tag(ours.run_id, IDENTITY, f"{ours.record['identity']}{lost}")
        self._pages.finish(ours.run_id, ours.folder, ours.artifacts, record)
        self._client.set_terminated(ours.run_id, status, _milliseconds(time))
        del self._open[run]
        return {"finished": run, "run_id": ours.run_id, "experiment_id": self._experiment_id, "uri": self._uri}

    def give_up(self, run: int, record: str | None, error: str) -> None:
        """End a run as FAILED whose record cannot be written; `record` if it is the beginning that failed."""
        ours = self._open.pop(run, None)
        found = find_record(self._client, self._experiment_id, record) if record and ours is None else None
        run_id = ours.run_id if ours else found and found.info.run_id
        if run_id:
            self._pages.drop(run_id)
            end_run(self._client, run_id, "FAILED", error)

    def leave(self) -> None:
        """Let go of the runs that are still open, and leave them as they are."""
        self._pages.leave()
        self._open.clear()

    def end_all(self, status: str, error: str) -> None:
        """End the runs that are still open."""
        for ours in self._open.values():
            end_run(self._client, ours.run_id, status, error)
        self.leave()

    def _create(
        self,
        record: str,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        time: float,
        parent: int | None,
        again: bool,
    ) -> str:
        from mlflow.entities import Param, RunTag
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        above = {MLFLOW_PARENT_RUN_ID: self._open[parent].run_id} if parent in self._open else {}  # else it is lost
        tags = {**tags, RECORD_ID: record, WRITER: name_writer(), **above}
        run_id = self._reopen(record) if again else None
        if run_id is None:
            made = self._client.create_run(self._experiment_id, _milliseconds(time), tags, name)
            run_id, tags = str(made.info.run_id), {}
        entities = [Param(make_key(key), value[:PARAM_LENGTH]) for key, value in params.items()]
        self._client.log_batch(run_id, params=entities, tags=[RunTag(key, value) for key, value in tags.items()])
        return run_id

    def _reopen(self, record: str) -> str | None:
        """What the store has of a run that another writer began: its id, and it stands RUNNING again."""
        found = find_record(self._client, self._experiment_id, record)
        if found is None:
            return None
        run_id = str(found.info.run_id)
        self._client.update_run(run_id, status="RUNNING")
        if ERROR in found.data.tags:  # that its record was cut off
            self._client.delete_tag(run_id, ERROR)
        remove_pictures(self._client, run_id, self._uri)
        return run_id


def find_record(client: Any, experiment_id: str, record: str) -> Any | None:
    """Return the run of an experiment whose tag RECORD_ID is `record`, None if there is none."""
    found = client.search_runs([experiment_id], f"tags.{RECORD_ID} = '{record}'", max_results=1)
    return found[0] if found else None


def remove_pictures(client: Any, run_id: str, uri: str) -> None:
    """Remove what MLflow's comparison of runs shows of a run: a picture that is logged again gets another name."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if IMAGES in {one.path for one in client.list_artifacts(run_id)}:
        artifacts = client.get_run(run_id).info.artifact_uri
        get_artifact_repository(artifacts, tracking_uri=uri).delete_artifacts(IMAGES)


def read_states(files: Mapping[str, list[Any]]) -> dict[str, FileState]:
    """The files of a message."""
    return {where: FileState(*state) for where, state in files.items()}


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
