"""Send the runs of the local store to the server that was out of reach when they ran.

Both stores identify a run by its tag RECORD_ID. What the server already has of a run, from before it failed or from a
transfer that was interrupted, is completed and not written twice. A run is deleted from the local store only when the
server shows all of it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.record.artifacts import RECORD
from pipeline.record.writer.finished_runs import IDENTITY
from pipeline.record.writer.mlflow_inputs import RunInputs
from pipeline.record.writer.open_runs import RECORD_ID, find_record, remove_pictures
from pipeline.record.writer.orphans import WRITER, end_orphans, name_writer
from pipeline.record.writer.store import UNSENT, Store, find_database, open_store, read_all

SENT_AS = "sent_as"  # the tag of a run in the local store: its id on the server
PARENT = "mlflow.parentRunId"
RUN_ID = re.compile(r"\b[0-9a-f]{32}\b")


class UnsentRuns:
    """The runs of the local store; `uri` is that of the server.

    Only one process at a time uses them; others wait until it ends.
    """

    def __init__(self, uri: str):
        self._uri = uri
        self._stores: dict[str, Store] = {}  # on the server, by experiment
        self._local: Any = None
        database = find_database(UNSENT)
        if database.is_file():
            from filelock import FileLock

            self._lock = FileLock(f"{database}.sync.lock")
            self._lock.acquire()
            self._local = open_store(UNSENT, None).client

    def list_runs(self) -> list[dict[str, str]]:
        """Return `run_id`, `name` and `status` of the runs that can be sent, in the order in which to send them.

        A run comes before the runs below it, and while it is RUNNING these cannot be sent either.
        """
        if not self._local:
            return []
        ids = [one.experiment_id for one in read_all(self._local.search_experiments)]
        for experiment_id in ids:  # a power cut may have left runs that will never end
            end_orphans(self._local, experiment_id)
        found = list(read_all(self._local.search_runs, ids))
        running = {run.info.run_id for run in found if run.info.status == "RUNNING"}
        ready = [run for run in found if not running & {run.info.run_id, run.data.tags.get(PARENT)}]
        ready.sort(key=lambda run: (PARENT in run.data.tags, run.info.start_time))
        return [{"run_id": run.info.run_id, "name": run.info.run_name, "status": run.info.status} for run in ready]

    def send(self, run_id: str) -> str:
        """Send one run, delete it from the local store, and return its id on the server.

        Raises OSError if the run above it is not sent yet or the server does not show all of it, and the errors of
        MLflow.
        """
        run = self._local.get_run(run_id)
        self._check_parent(run)
        store = self._open_experiment(self._local.get_experiment(run.info.experiment_id).name)
        server_run = self._begin(run, store)
        server_id = str(server_run.info.run_id)
        if server_run.info.status == "FINISHED" and run.info.status != "FINISHED":
            self._delete(run, server_id)  # it was begun here and then written to the server completely
            return server_id
        self._send_data(run, store, server_id)
        self._send_artifacts(run, store, server_id)
        if IDENTITY in run.data.tags:  # set last, because a sweep finds the run by it
            store.client.set_tag(server_id, IDENTITY, run.data.tags[IDENTITY])
        store.client.set_terminated(server_id, run.info.status, run.info.end_time)
        self._check(run, store.client, server_id)
        self._delete(run, server_id)
        return server_id

    def _check_parent(self, run: Any) -> None:
        """Raise OSError if the run above is not sent: its id on the server is unknown and cannot be added later."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        parent = run.data.tags.get(PARENT)
        if parent is None:
            return
        try:
            parent_run = self._local.get_run(parent)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return  # the run above is on the server
        if parent_run.info.lifecycle_stage == "active" and SENT_AS not in parent_run.data.tags:
            raise OSError(f"it is below run {parent} ({parent_run.info.run_name}), which must be sent first")

    def _open_experiment(self, name: str) -> Store:
        if name not in self._stores:
            self._stores[name] = open_store(self._uri, name)
        return self._stores[name]

    def _begin(self, run: Any, store: Store) -> Any:
        """Return the run of the server that has the same record, and create it if there is none."""
        record = run.data.tags[RECORD_ID]
        if found := find_record(store.client, store.experiment_id, record):
            return found
        tags = {RECORD_ID: record, WRITER: name_writer()}
        return store.client.create_run(store.experiment_id, run.info.start_time, tags, run.info.run_name)

    def _send_data(self, run: Any, store: Store, server_id: str) -> None:
        from mlflow.entities import Param, RunTag

        client = store.client

        def translate(text: str) -> str:
            pages = text.replace(_link_pages(run.info.experiment_id), _link_pages(store.experiment_id))
            return self._translate(pages, {run.info.run_id: server_id})

        for key, text in self._local.get_experiment(run.info.experiment_id).tags.items():
            if run.info.run_id in key:  # the page that compares the runs of a sweep
                client.set_experiment_tag(store.experiment_id, translate(key), translate(text))
        tags = {key: translate(text) for key, text in run.data.tags.items()}
        # A tag that the server alone has is out of date, such as the one that says that the record was cut off.
        for key in client.get_run(server_id).data.tags.keys() - tags.keys():
            client.delete_tag(server_id, key)
        tags = {**tags, WRITER: name_writer()}
        tags.pop(IDENTITY, None)
        params = [Param(key, text) for key, text in run.data.params.items()]
        client.log_batch(server_id, params=params, tags=[RunTag(key, text) for key, text in tags.items()])
        for key in run.data.metrics:
            client.log_batch(server_id, metrics=self._local.get_metric_history(run.info.run_id, key))

    def _translate(self, text: str, known: Mapping[str, str]) -> str:
        """Return a text in which the ids of runs are replaced by those that they have on the server."""

        def find(match: re.Match[str]) -> str:
            if match[0] in known:
                return known[match[0]]
            try:
                return str(self._local.get_run(match[0]).data.tags.get(SENT_AS, match[0]))
            except Exception:  # noqa: BLE001 (it is no run of the local store)
                return match[0]

        return RUN_ID.sub(find, text)

    def _send_artifacts(self, run: Any, store: Store, server_id: str) -> None:
        client, folder = store.client, find_artifacts(run)
        remove_pictures(client, server_id, self._uri)
        if folder.is_dir():
            client.log_artifacts(server_id, str(folder))
        if (folder / RECORD).is_file():
            RunInputs(store).log(server_id, folder, json.loads((folder / RECORD).read_bytes()))

    def _check(self, run: Any, client: Any, server_id: str) -> None:
        """Raise OSError unless the server shows all that the local store has of a run."""
        folder = find_artifacts(run)
        local_files = {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
        server_files = dict(list_files(client, server_id))
        data = client.get_run(server_id).data
        missing = [
            *(f"artifact {name}" for name, size in local_files.items() if server_files.get(name) != size),
            *(f"param {key}" for key, text in run.data.params.items() if data.params.get(key) != text),
            *(f"metric {key}" for key in run.data.metrics.keys() - data.metrics.keys()),
        ]
        if missing:
            raise OSError(f"run {server_id} of {self._uri} lacks what was sent: {', '.join(missing[:5])}")

    def _delete(self, run: Any, server_id: str) -> None:
        """Mark a run as deleted in the local store, and remove its artifacts.

        Its row stays, so that runs that name it can still be sent.
        """
        self._local.set_tag(run.info.run_id, SENT_AS, server_id)
        self._local.delete_run(run.info.run_id)
        shutil.rmtree(find_artifacts(run), ignore_errors=True)


def _link_pages(experiment_id: str) -> str:
    """Return the beginning of links to the pages of an experiment."""
    return f"#/experiments/{experiment_id}/"


def find_artifacts(run: Any) -> Path:
    """Return the folder of the artifacts of a run in the local store."""
    return Path(unquote(urlsplit(run.info.artifact_uri).path))


def list_files(client: Any, run_id: str, folder: str | None = None) -> Iterator[tuple[str, int]]:
    """Yield name and size, in bytes, of all artifacts of a run."""
    for one in client.list_artifacts(run_id, folder):
        if one.is_dir:
            yield from list_files(client, run_id, one.path)
        else:
            yield one.path, one.file_size
