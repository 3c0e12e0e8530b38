"""Find what a store should not have: artifacts of unknown runs, and finished runs with damaged artifacts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.record.writer.finished_runs import IDENTITY, FinishedRuns
from pipeline.record.writer.store import read_all

RUN_ID = re.compile(r"[0-9a-f]{32}")


class Leftovers:
    """Finds and removes leftovers of all experiments of a store.

    `client` is an MlflowClient, `any_stage` MLflow's view type for what is deleted and what is not.
    """

    def __init__(self, client: Any, finished: FinishedRuns, any_stage: int):
        self._client = client
        self._finished = finished
        self._any_stage = any_stage

    def find(self) -> dict[str, list[Any]]:
        """Return the leftovers of the store.

        orphans: the paths of folders of artifacts without a run.
        broken: the FINISHED runs whose artifacts are not as they were recorded, with `run_id`, `name` and `reason`.
        skipped: the folders that were not examined, with the reason.
        """
        skipped: list[str] = []
        orphans = [str(path) for path in self._find_orphans(skipped)]
        return {"orphans": orphans, "broken": list(self._find_broken()), "skipped": skipped}

    def remove(self, orphans: list[str], broken: list[str]) -> dict[str, list[str]]:
        """Remove folders permanently, and mark runs as deleted.

        `mlflow gc` removes marked runs permanently, `mlflow runs restore` restores them. What is no longer a leftover
        is not touched. Return what was removed as `orphans` and `broken`, and why something was not as `failed`.
        """
        removed: dict[str, list[str]] = {"orphans": [], "broken": [], "failed": []}
        for path in self._find_orphans([]):
            if str(path) in orphans:
                try:
                    shutil.rmtree(path)
                    removed["orphans"].append(str(path))
                except OSError as error:
                    removed["failed"].append(f"{path}: {error.strerror or error}")
        for run in self._find_broken():
            if run["run_id"] in broken:
                self._client.delete_run(run["run_id"])
                removed["broken"].append(run["run_id"])
        return removed

    def _find_orphans(self, skipped: list[str]) -> Iterator[Path]:
        """Yield the folders of artifacts that belong to no run.

        The folders are listed before the runs. MLflow creates a run before its folder, so the run of a listed folder
        exists by then, even if it has just been created.
        """
        folders = self._list_folders(skipped)
        ids = [one.experiment_id for one in self._read_experiments()]  # some may be new
        known = {run.info.run_id for run in read_all(self._client.search_runs, ids, run_view_type=self._any_stage)}
        for path in folders:
            if path.name not in known and not self._is_run(path.name):
                yield path

    def _list_folders(self, skipped: list[str]) -> list[Path]:
        places = {_find_folder(one.artifact_location) for one in self._read_experiments()}
        folders: list[Path] = []
        for location in sorted(path for path in places if path and path.is_dir()):
            if len(list(location.parent.glob("*.db"))) > 1:
                skipped.append(f"{location}: several stores lie beside it, and it may hold artifacts of each")
                continue
            found = (path for path in location.iterdir() if RUN_ID.fullmatch(path.name))
            folders += sorted(path for path in found if (path / "artifacts").is_dir())
        return folders

    def _read_experiments(self) -> list[Any]:
        return list(read_all(self._client.search_experiments, view_type=self._any_stage))

    def _is_run(self, run_id: str) -> bool:
        """Return whether the store has a run, asked by its id.

        While others write, a search can miss a run that moves from one page to another.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return False
        return True

    def _find_broken(self) -> Iterator[dict[str, str]]:
        ids = [one.experiment_id for one in read_all(self._client.search_experiments)]
        for run in read_all(self._client.search_runs, ids):
            if run.info.status == "FINISHED" and IDENTITY in run.data.tags:
                reason = self._finished.explain_damage(run.info.run_id)
                if reason:
                    yield {"run_id": run.info.run_id, "name": run.info.run_name, "reason": reason}


def _find_folder(location: str) -> Path | None:
    """Return the folder of artifacts if it is on this machine, else None."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
