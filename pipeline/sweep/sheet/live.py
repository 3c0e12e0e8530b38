"""Draw the contact sheet of a running sweep in a thread of its own, beside the sampling."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias

from pipeline.errors import OutputError
from pipeline.sweep.axes import Axis
from pipeline.sweep.sheet.contact_sheet import ContactSheet
from pipeline.sweep.sheet.layout import SheetJob
from pipeline.sweep.sheet.page import Status

log = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two drawings; each takes about 0.1 s at 200 cells

Cell: TypeAlias = tuple[int, Path | None, Status, Mapping[str, str], str]


class LiveSheet:
    """A contact sheet in `folder` that grows while jobs are placed, and is complete after `close`.

    Example:
        sheet = LiveSheet(folder, "steps=4,8", axes, jobs)
        sheet.place(0, picture, "finished", facts)
        files = sheet.close()
    """

    def __init__(self, folder: Path, title: str, axes: Sequence[Axis], jobs: Sequence[SheetJob]):
        self._folder = folder
        self._sheet = ContactSheet(title, axes, jobs)
        self._lock = threading.Lock()  # held while the sheet is changed or written
        self._cells: SimpleQueue[Cell | None] = SimpleQueue()
        self._files: list[Path] = []
        self._thread = threading.Thread(target=self._draw, name="latentgrid-sheet", daemon=True)
        self._thread.start()

    def extend(self, axes: Sequence[Axis], jobs: Sequence[SheetJob]) -> None:
        """Make room for more jobs; `axes` are those of all jobs."""
        with self._lock:
            self._sheet.extend(axes, jobs)

    def place(
        self, number: int, picture: Path | None, status: Status, facts: Mapping[str, str], mark: str = ""
    ) -> None:
        """Show the outcome of a job, as `ContactSheet.place` does. Returns at once."""
        self._cells.put((number, picture, status, facts, mark))

    def close(self) -> list[Path]:
        """Draw what is left and return the files of the sheet. Files that cannot be written are logged."""
        self._cells.put(None)
        self._thread.join()
        return self._files

    def _draw(self) -> None:
        drawn = 0.0
        while self._place_until(drawn + EVERY):
            self._write()
            drawn = time.monotonic()
        self._write()

    def _place_until(self, due: float) -> bool:
        """Place at least one cell, and more until the time `due`. Return false if there will be no more cells."""
        cell = self._cells.get()
        while cell is not None:
            with self._lock:
                self._sheet.place(*cell)
            try:
                cell = self._cells.get(timeout=max(0.0, due - time.monotonic()))
            except Empty:
                return True
        return False

    def _write(self) -> None:
        try:
            with self._lock:
                self._files = self._sheet.write(self._folder)
        except OutputError as error:
            log.error("%s", error)
