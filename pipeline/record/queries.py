"""Queries to the MLflow store, answered by the process that writes to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from pipeline.base.file_state import FileState
from pipeline.errors import RecordError
from pipeline.record.artifacts import RECORD
from pipeline.record.provenance import RecordedRun, read_record
from pipeline.record.writer_link import WriterLink


@dataclass(frozen=True)
class FinishedRun:
    """A recorded run that need not run again. `metrics` has the last value of each metric."""

    run_id: str
    metrics: Mapping[str, float]


class RunStore:
    """The runs of an MLflow store, for queries.

    Each query waits for its answer, and the writer answers after it has handled all earlier messages. Each query raises
    TrackingError if nothing can be written to the store any more.

    Example:
        tracker.store.read(run_id, folder).metrics["seconds/total"]
    """

    def __init__(self, link: WriterLink, uri: str):
        self._link, self._uri = link, uri

    def find_finished(self, identities: Sequence[tuple[str, Mapping[str, FileState]]]) -> list[FinishedRun | None]:
        """Return for each identity (key and files) a FINISHED run whose artifacts are intact, or None."""
        plain = [(key, {where: astuple(state) for where, state in files.items()}) for key, files in identities]
        return [FinishedRun(**found) if found else None for found in self._ask("find", "found", wanted=plain)]

    def explain_missing(
        self, name: str, cell: str, facts: Mapping[str, str], files: Mapping[str, FileState]
    ) -> tuple[list[str], int]:
        """Return why the latest run of a cell cannot be taken over, the likeliest cause first, and a number.

        If no run of the cell is recorded, there are no reasons, and the number says how many of the latest runs of this
        name have records that are too old to be taken over.
        """
        plain = {where: astuple(state) for where, state in files.items()}
        answer = self._ask("explain", "explained", name=name, cell=cell, facts=dict(facts), files=plain)
        return list(answer["reasons"]), int(answer["older"])

    def recall(self, count: int) -> list[dict[str, Any]]:
        """Return the `params` and `metrics` of the latest finished runs, the latest first."""
        return list(self._ask("recall", "recalled", count=count))

    def list_runs(self, experiment: str, count: int) -> list[dict[str, Any]]:
        """Return the latest runs of an experiment, whatever their status.

        Each has `run_id`, `name`, `status`, `params`, `metrics` and `artifact_uri`. Return an empty list if there is no
        such experiment.
        """
        return list(self._ask("list", "listed", experiment=experiment, count=count))

    def find_leftovers(self) -> dict[str, list[Any]]:
        """Return what the store should not have; see `Leftovers.find`.

        Raises RecordError if the store is out of reach.
        """
        found = self._ask("survey", "surveyed")
        if found is None:
            raise RecordError(f"tracking.uri: {self._uri!r} is out of reach, so nothing was looked at")
        return dict(found)

    def remove_leftovers(self, orphans: Sequence[str], broken: Sequence[str]) -> dict[str, list[str]]:
        """Remove leftovers that `find_leftovers` found; see `Leftovers.remove`.

        `orphans` are folders of artifacts, `broken` are ids of runs. Raises RecordError if the store is out of reach.
        """
        removed = self._ask("remove", "removed", orphans=list(orphans), broken=list(broken))
        if removed is None:
            message = "went out of reach, so not all was removed; try again with the same command"
            raise RecordError(f"tracking.uri: {self._uri!r} {message}")
        return dict(removed)

    def read(self, run_id: str, folder: Path) -> RecordedRun:
        """Return what is recorded of a run, and copy its files into `folder`. Raises RecordError."""
        answer = self._ask("read", "read", run_id=run_id, folder=str(folder.resolve()))
        if "error" in answer:
            raise RecordError(f"run {run_id}: cannot be read from {self._uri}: {answer['error']}")
        record = read_record((folder / RECORD).read_bytes()) if answer.pop("is_whole") else None
        return RecordedRun(**{**answer, "children": tuple(answer["children"])}, folder=folder, record=record)

    def read_artifact(self, run_id: str, name: str) -> str:
        """Return the text of an artifact of a run, finished or not. Raises RecordError."""
        text, reason = self._ask("fetch", "fetched", run_id=run_id, name=name)
        if text is None:
            raise RecordError(f"run {run_id}: {name} cannot be read from {self._uri}: {reason}")
        return str(text)

    def list_unsent(self) -> list[dict[str, str]]:
        """Return `run_id`, `name` and `status` of the runs in the local store that can be sent to the server.

        They are in the order in which they must be sent. Raises RecordError if the server is out of reach.
        """
        found = self._ask("list_unsent", "unsent")
        if found is None:
            raise RecordError(f"tracking.uri: {self._uri!r} is out of reach, so nothing was sent")
        return list(found)

    def send_unsent(self, run_id: str) -> str:
        """Send a run of the local store and return its id on the server.

        Raises RecordError if that fails; the run then stays in the local store.
        """
        answer = self._ask("send", "sent", run_id=run_id)
        if "error" in answer:
            raise RecordError(f"run {run_id}: could not be sent to {self._uri}: {answer['error']}")
        return str(answer["run_id"])

    def _ask(self, command: str, expected: str, **content: Any) -> Any:
        """Send the writer a message, and return what its answer has under the key `expected`."""
        return self._link.ask({"do": command, **content}, expected)
