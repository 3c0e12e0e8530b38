"""Write what MLflow's UI shows of a run besides params, metrics and files: description, inputs, system metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.record.note import NOTE, finish_note, finish_sweep_note
from pipeline.record.writer.mlflow_inputs import RunInputs
from pipeline.record.writer.store import Store
from pipeline.record.writer.sweep_view import write_view
from pipeline.record.writer.system_metrics import start_monitor


@dataclass
class _Page:
    """The beginning of the description of a RUNNING run, and what else its page needs."""

    note: str
    axes: Sequence[str] = ()
    taken_from: str = ""
    monitor: Any = None


@dataclass
class RunPages:
    """Writes the pages of the runs in the experiment of a store.

    system_metrics: whether to log what the machine does during each run.
    """

    store: Store
    system_metrics: bool
    _open: dict[str, _Page] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._inputs = RunInputs(self.store)

    def begin(self, run_id: str, tags: Mapping[str, str], axes: Sequence[str], kept: Sequence[str]) -> None:
        """Begin the page of a run that was just created with these `tags`; `axes` and `kept` are those of `NewRun`."""
        monitor = start_monitor(run_id, self.store.uri) if self.system_metrics else None
        self._open[run_id] = _Page(tags.get(NOTE, ""), axes, monitor=monitor)
        if axes:
            self.store.client.set_experiment_tag(self.store.experiment_id, *write_view(run_id, axes, kept))

    def begin_taken(self, run_id: str, tags: Mapping[str, str], taken_from: str) -> None:
        """Begin the page of a run that takes over results and `tags`; the run `taken_from` computed the results."""
        self._open[run_id] = _Page(tags.get(NOTE, ""), taken_from=taken_from)

    def drop(self, run_id: str) -> None:
        """Release a run and stop its monitor; nothing more is written about it."""
        page = self._open.pop(run_id, None)
        if page and page.monitor:
            page.monitor.finish()

    def leave(self) -> None:
        """Release all open runs and stop their monitors."""
        for run_id in list(self._open):
            self.drop(run_id)

    def finish(self, run_id: str, folder: Path, files: Collection[str], record: Mapping[str, Any] | None) -> None:
        """Complete the page of a run before the run is ended.

        `files` are its artifacts, which lie in `folder`; `record` is its record.json, None if it has none.
        """
        page = self._open.pop(run_id)
        if page.monitor:
            page.monitor.finish()
        if record is not None:
            self._inputs.log(run_id, folder, record)
            note = finish_note(page.note, self.store.experiment_id, run_id, files, page.taken_from)
            self.store.client.set_tag(run_id, NOTE, note)
        elif page.axes:
            self.store.client.set_tag(
                run_id, NOTE, finish_sweep_note(page.note, self.store.experiment_id, run_id, files)
            )
