"""Find runs in MLflow whose results a new run would repeat, copy their files, and read their records."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.file_hashes import FileHashes
from pipeline.base.file_state import FileState, hash_file
from pipeline.record.artifacts import RECORD
from pipeline.record.differences import compare_facts, join_facts
from pipeline.record.fact_table import CELL, select_key_facts
from pipeline.record.provenance import read_record
from pipeline.record.writer.store import is_out_of_reach

IDENTITY = "identity"  # the tag by which a run is found; it is set when its record is complete
LATEST = "attributes.start_time DESC"
FIRST = "attributes.start_time ASC"
MOST = 50_000  # runs that MLflow returns at once
TRIED = 5  # how many runs are tried, the latest first: the files of one may be gone


class FinishedRuns:
    """The FINISHED runs of an experiment; `client` is an MlflowClient."""

    def __init__(self, client: Any, experiment_id: str, hashes: FileHashes):
        self._client = client
        self._experiment_id = experiment_id
        self._hashes = hashes

    def find(self, key: str, files: Mapping[str, FileState]) -> dict[str, Any] | None:
        """Return `run_id` and `metrics` of a run of this identity, or None.

        The run was made from files of the same content, and its artifacts are intact.
        """
        found = self._client.search_runs(
            [self._experiment_id],
            f"tags.{IDENTITY} = '{key}' and attributes.status = 'FINISHED'",
            max_results=TRIED,
            order_by=[LATEST],
        )
        for run in found:
            if self._is_intact(run.info.run_id, files):
                return {"run_id": run.info.run_id, "metrics": run.data.metrics}
        return None

    def explain_missing(self, cell: str, facts: Mapping[str, str], files: Mapping[str, FileState]) -> list[str]:
        """Return why the latest finished run of a cell is not taken over: what differs, the likeliest cause first.

        Return an empty list if there is no such run. `facts` and `files` are those that a new run would have.
        """
        found = self._client.search_runs(
            [self._experiment_id],
            f"tags.{CELL} = '{cell}' and attributes.status = 'FINISHED'",
            max_results=1,
            order_by=[LATEST],
        )
        if not found:
            return []
        run_id = found[0].info.run_id
        if "not_kept" in found[0].data.tags:
            return [f"run {run_id}: it could not keep all of its outputs ({found[0].data.tags['not_kept']})"]
        with tempfile.TemporaryDirectory(prefix="latentgrid-") as name:
            try:
                record = read_record(json.dumps(self._read_record(run_id, Path(name))))
            except Exception as error:  # noqa: BLE001 (a store may raise anything for a missing file)
                return [f"run {run_id}: its record cannot be read ({error})"]
        reasons = compare_facts(select_key_facts(record.facts), facts)
        if not reasons:  # only then wait for the hashes of files, which may be large
            now = {where: self._hashes.get(state) or "changed meanwhile" for where, state in files.items()}
            then = {where: sha256 or "unknown" for where, sha256 in record.files.items()}
            reasons = compare_facts(join_facts({}, then, {}), join_facts({}, now, {}))
        return [f"run {run_id}: {one}" for one in reasons] or [f"run {run_id}: its files are damaged or gone"]

    def count_older(self, name: str) -> int:
        """Return how many of the latest finished runs of a name have a record without the tag `CELL`.

        Such a record is of an older latentgrid and does not hold all facts that a result follows from.
        """
        # MLflow has no way to escape a quote within quotes; in LIKE, _ stands for any character.
        pattern = name.replace("'", "_")
        found = self._client.search_runs(
            [self._experiment_id],
            f"attributes.run_name LIKE '{pattern}' and attributes.status = 'FINISHED'",
            max_results=TRIED,
            order_by=[LATEST],
        )
        return sum(
            run.info.run_name == name and IDENTITY in run.data.tags and CELL not in run.data.tags for run in found
        )

    def fetch(self, run_id: str, folder: Path, without: Collection[str] = ()) -> dict[str, Any]:
        """Copy the artifacts of a run into `folder` and return its record. Raises OSError if one is not as recorded.

        Those in `without` are not copied.
        """
        folder.mkdir(parents=True, exist_ok=True)
        record = self._read_record(run_id, folder)
        for name, sha256 in record["artifacts"].items():
            if name in without:
                continue
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            self._download(run_id, name, folder)
            if hash_file(folder / name) != sha256:
                raise OSError(f"{name} of run {run_id} is not what was recorded")
        return record

    def list_runs(self, experiment: str, count: int) -> list[dict[str, Any]]:
        """Return the latest runs of any experiment, whatever their status; see `RunStore.list_runs`."""
        where = self._client.get_experiment_by_name(experiment)
        found = self._client.search_runs([where.experiment_id], max_results=count, order_by=[LATEST]) if where else []
        return [
            {
                "run_id": run.info.run_id,
                "name": run.info.run_name,
                "status": run.info.status,
                "params": dict(run.data.params),
                "metrics": dict(run.data.metrics),
                "artifact_uri": run.info.artifact_uri,
            }
            for run in found
        ]

    def explain_damage(self, run_id: str) -> str:
        """Return why the artifacts of a run cannot be read as they were recorded, or an empty text if they can.

        Raises the error of MLflow if the store, or the storage of its files, is out of reach.
        """
        with tempfile.TemporaryDirectory(prefix="latentgrid-") as name:
            try:
                self.fetch(run_id, Path(name))
            except Exception as error:  # a store may raise anything for a missing file
                if is_out_of_reach(error):
                    raise
                return str(error) or type(error).__name__
        return ""

    def read(self, run_id: str, folder: Path) -> dict[str, Any]:
        """Return what is recorded of a run of any experiment. If its record is complete, copy its files into `folder`.

        Raises OSError if a file is not as it was recorded, and what the store raises for an unknown id.
        """
        run = self._client.get_run(run_id)
        is_complete = IDENTITY in run.data.tags
        if is_complete:
            self.fetch(run_id, folder)
        children = self._client.search_runs(
            [run.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'", max_results=MOST, order_by=[FIRST]
        )
        return {
            "run_id": run.info.run_id,
            "name": run.info.run_name,
            "status": run.info.status,
            "experiment": self._client.get_experiment(run.info.experiment_id).name,
            "tags": dict(run.data.tags),
            "params": dict(run.data.params),
            "metrics": dict(run.data.metrics),
            "children": [child.info.run_id for child in children],
            "is_whole": is_complete,
        }

    def recall(self, count: int) -> list[dict[str, Any]]:
        """Return the params and metrics of the latest finished runs, the latest first."""
        found = self._client.search_runs(
            [self._experiment_id], "attributes.status = 'FINISHED'", max_results=count, order_by=[LATEST]
        )
        return [{"params": run.data.params, "metrics": run.data.metrics} for run in found]

    def _is_intact(self, run_id: str, files: Mapping[str, FileState]) -> bool:
        """Return whether `files` have the recorded content and all artifacts can be read and are as recorded."""
        with tempfile.TemporaryDirectory(prefix="latentgrid-") as name:
            try:
                record = read_record(json.dumps(self._read_record(run_id, Path(name))))
                now = {where: self._hashes.get(state) for where, state in files.items()}
                if record.files != now or None in now.values():
                    return False
                self.fetch(run_id, Path(name))
            except Exception:  # noqa: BLE001 (a store may raise anything for a missing file)
                return False
        return True

    def _read_record(self, run_id: str, folder: Path) -> dict[str, Any]:
        self._download(run_id, RECORD, folder)
        record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
        return record

    def _download(self, run_id: str, name: str, folder: Path) -> None:
        """Download an artifact into `folder`.

        MLflow's client reports every failure as a missing file. The storage of the files is then asked directly: its
        error says what failed.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            self._client.download_artifacts(run_id, name, str((folder / name).parent))
        except MlflowException:
            artifacts = self._client.get_run(run_id).info.artifact_uri
            files = get_artifact_repository(artifacts, tracking_uri=self._client.tracking_uri)
            files._download_file(name, str(folder / name))
