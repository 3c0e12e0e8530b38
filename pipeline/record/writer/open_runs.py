"""The runs that are RUNNING in an MLflow store, and what is added to them until they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

RECORD_ID = "record_id"  # the tag by which a record is found in a store; unlike a run id, it is known from the start
LINKED = "linked_run_id"  # the tag of a run that took over results: the id of the run that computed them
IMAGES = "images"  # where MLflow puts the pictures of its comparison, under a new name each time
TAKEN = {"mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", NOTE}
COSTS = ("seconds", "memory/", "system/")  # prefixes of metrics of the computation, not of its results


@dataclass
class OpenRun:
    """A run that is RUNNING in MLflow.

    record: the beginning of its record.json.
    hash_files: waits for the hashes of its files and returns the `files` of its record.json.
    artifacts: the sha256 of each of its artifacts so far, by name.
    pictures: which artifacts MLflow's comparison shows, and under which name.
    """

    run_id: str
    folder: Path
    record: dict[str, Any]
    hash_files: Callable[[], dict[str, Any]]
    artifacts: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


class OpenRuns:
    """Begins and ends runs in one store.

    `start`, `link`, `log`, `file` and `finish` carry out the messages of a `Tracker`. `run` is the number of a run in
    the messages, `record` is its tag RECORD_ID. `again` says that another writer may have begun the run; what the store
    has of it is then completed.
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
        """Begin a run, and begin to hash its files in the background."""
        models, others = read_states(files), read_states(inputs)
        for state in (*models.values(), *others.values()):
            self._hashes.begin(state)

        def hash_files() -> dict[str, Any]:
            return {
                **{where: provenance.write_file(one, self._hashes.get(one), "model") for where, one in models.items()},
                **{where: provenance.write_file(one, self._hashes.get(one), "input") for where, one in others.items()},
            }

        run_id = self._create(record, name, params, tags, time, parent, again)
        self._open[run] = OpenRun(run_id, Path(folder), provenance.begin_record(identity, facts), hash_files)
        self._pages.begin(run_id, tags, axes, kept)

    def link(
        self,
        run: int,
        record: str,
        name: str,
        source: str,
        time: float,
        parent: int | None,
        folder: str,
        params: dict[str, str] | None = None,
        note: str | None = None,
        own: Sequence[str] = (),
        again: bool = False,
    ) -> dict[str, Any]:
        """Take over a finished run: copy its files into `folder`, and record a run of its own that names it.

        params, note: those of the new run, which may be another way to the same results; None: as in the run `source`.
        own: the names of the files that the new run has written into `folder` itself.
        """
        recorded, source_data = self._finished.fetch(source, Path(folder), own), self._client.get_run(source).data
        tags = {key: value for key, value in source_data.tags.items() if key in TAKEN or not key.startswith("mlflow.")}
        tags[LINKED] = tags.get(LINKED, source)
        del tags[IDENTITY]  # it is set when the new record is complete
        if note is not None:
            tags[NOTE] = note
        given = source_data.params if params is None else params
        run_id = self._create(record, name, given, tags, time, parent, again)
        self._open[run] = OpenRun(run_id, Path(folder), dict(recorded), lambda: recorded["files"])
        self._pages.begin_taken(run_id, tags, tags[LINKED])
        results = {key: value for key, value in source_data.metrics.items() if not key.startswith(COSTS)}
        self.log(run, [[key, value, time, 0] for key, value in results.items()], {})
        for path in dict.fromkeys([*own, *recorded["artifacts"]]):
            self.file(run, str(Path(folder, path)), recorded["pictures"].get(path))
        return self.finish(run, "FINISHED", time, {}, {})

    def log(self, run: int, metrics: list[list[Any]], tags: dict[str, str]) -> None:
        """Add metrics (key, value, seconds since the epoch, step) and tags."""
        from mlflow.entities import Metric, RunTag

        entities = [Metric(make_key(key), value, _milliseconds(time), step) for key, value, time, step in metrics]
        self._client.log_batch(
            self._open[run].run_id, metrics=entities, tags=[RunTag(key, value) for key, value in tags.items()]
        )

    def file(self, run: int, path: str, key: str | None) -> None:
        """Add a file of the run's folder. MLflow's comparison of runs also shows it if it is a picture with a key."""
        open_run = self._open[run]
        name = Path(path).relative_to(open_run.folder).as_posix()
        self._client.log_artifact(open_run.run_id, path, name.rpartition("/")[0] or None)
        open_run.artifacts[name] = hash_file(Path(path))
        if key:
            from PIL import Image

            open_run.pictures[name] = key
            with Image.open(path) as picture:
                self._client.log_image(open_run.run_id, picture.convert("RGB"), key=make_picture_key(key), step=0)

    def finish(
        self, run: int, status: str, time: float, learnt: dict[str, str], outputs: dict[str, str]
    ) -> dict[str, Any]:
        """End a run. If it FINISHED and lost no output, it is found by its identity from now on."""
        open_run, record = self._open[run], None
        if status == "FINISHED" and open_run.record["identity"]:
            provenance.add_learnt(open_run.record, learnt, outputs)
            record = {**open_run.record, "files": open_run.hash_files()}
            record |= {"artifacts": open_run.artifacts, "pictures": open_run.pictures}
            self._client.log_artifact(open_run.run_id, str(write_record(open_run.folder, record)))
            # If an output was lost, a resumed sweep must not find the run, but it has a record nevertheless.
            lost = " incomplete" if "not_kept" in learnt else ""
            self._client.set_tag(open_run.run_id, IDENTITY, f"{open_run.record['identity']}{lost}")
        self._pages.finish(open_run.run_id, open_run.folder, open_run.artifacts, record)
        self._client.set_terminated(open_run.run_id, status, _milliseconds(time))
        del self._open[run]
        return {"finished": run, "run_id": open_run.run_id, "experiment_id": self._experiment_id, "uri": self._uri}

    def give_up(self, run: int, record: str | None, error: str) -> None:
        """End a run as FAILED because its record cannot be written.

        `record` is given if the message that failed was to begin the run, which may be in the store nevertheless.
        """
        open_run = self._open.pop(run, None)
        found = find_record(self._client, self._experiment_id, record) if record and open_run is None else None
        run_id = open_run.run_id if open_run else found and found.info.run_id
        if run_id:
            self._pages.drop(run_id)
            end_run(self._client, run_id, "FAILED", error)

    def leave(self) -> None:
        """Release the runs that are still open, and leave them in the store as they are."""
        self._pages.leave()
        self._open.clear()

    def end_all(self, status: str, error: str) -> None:
        """End the runs that are still open."""
        for open_run in self._open.values():
            end_run(self._client, open_run.run_id, status, error)
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

        # A parent that is not open was lost.
        parent_tag = {MLFLOW_PARENT_RUN_ID: self._open[parent].run_id} if parent in self._open else {}
        tags = {**tags, RECORD_ID: record, WRITER: name_writer(), **parent_tag}
        run_id = self._reopen(record) if again else None
        if run_id is None:
            created = self._client.create_run(self._experiment_id, _milliseconds(time), tags, name)
            run_id, tags = str(created.info.run_id), {}
        entities = [Param(make_key(key), value[:PARAM_LENGTH]) for key, value in params.items()]
        self._client.log_batch(run_id, params=entities, tags=[RunTag(key, value) for key, value in tags.items()])
        return run_id

    def _reopen(self, record: str) -> str | None:
        """Set a run that another writer began to RUNNING again, and return its id.

        Return None if the store does not have the run.
        """
        found = find_record(self._client, self._experiment_id, record)
        if found is None:
            return None
        run_id = str(found.info.run_id)
        self._client.update_run(run_id, status="RUNNING")
        if ERROR in found.data.tags:  # it says that the record was cut off
            self._client.delete_tag(run_id, ERROR)
        remove_pictures(self._client, run_id, self._uri)
        return run_id


def find_record(client: Any, experiment_id: str, record: str) -> Any | None:
    """Return the run of an experiment whose tag RECORD_ID is `record`, or None."""
    found = client.search_runs([experiment_id], f"tags.{RECORD_ID} = '{record}'", max_results=1)
    return found[0] if found else None


def remove_pictures(client: Any, run_id: str, uri: str) -> None:
    """Remove a run's pictures from MLflow's comparison, because one that is logged again gets another name."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if IMAGES in {one.path for one in client.list_artifacts(run_id)}:
        artifacts = client.get_run(run_id).info.artifact_uri
        get_artifact_repository(artifacts, tracking_uri=uri).delete_artifacts(IMAGES)


def read_states(files: Mapping[str, list[Any]]) -> dict[str, FileState]:
    """Return the files of a message."""
    return {where: FileState(*state) for where, state in files.items()}


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
