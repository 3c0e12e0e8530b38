"""What MLflow's UI shows of a run besides params, metrics and files: its description, inputs and system metrics."""

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
    """Of a run that stands RUNNING: the beginning of its description, and what is known of it besides."""

    note: str
    axes: Sequence[str] = ()
    taken_from: str = ""
    monitor: Any = None


@dataclass
class RunPages:
    """Writes them for the runs of the experiment of a store.

    system_metrics: whether to log what the machine does during each run.
    """

    store: Store
    system_metrics: bool
    _open: dict[str, _Page] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._inputs = RunInputs(self.store)

    def begin(self, run_id: str, tags: Mapping[str, str], axes: Sequence[str], kept: Sequence[str]) -> None:
        """Begin with a run that was just made with these `tags`; `axes` and `kept` are those of `NewRun`."""
        monitor = start_monitor(run_id, self.store.uri) if self.system_metrics else None
        self._open[run_id] = _Page(tags.get(NOTE, ""), axes, monitor=monitor)
        if axes:
            self.store.client.set_experiment_tag(self.store.experiment_id, *write_view(run_id, axes, kept))

    def begin_taken(self, run_id: str, tags: Mapping[str, str], taken_from: str) -> None:
        """The same for one that takes over the results and the `tags` of another."""
        self._open[run_id] = _Page(tags.get(NOTE, ""), taken_from=taken_from)

    def drop(self, run_id: str) -> None:
        """End what goes on beside a run; nothing more is to be written of it."""
        page = self._open.pop(run_id, None)
        if page and page.monitor:
            page.monitor.finish()

    def leave(self) -> None:
        """The same for all open runs."""
        for run_id in list(self._open):
            self.drop(run_id)

    def finish(self, run_id: str, folder: Path, files: Collection[str], record: Mapping[str, Any] | None) -> None:
        """Complete a run before it is ended: `files` are its artifacts, which lie in `folder`; `record` is its
        record.json, None if it has none."""
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
