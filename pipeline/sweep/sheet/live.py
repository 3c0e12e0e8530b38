"""The contact sheet of a sweep that runs: drawn beside the sampling, in a thread of its own."""

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
    """A contact sheet in `folder` that grows while jobs are placed, and is whole after `close`."""

    def __init__(self, folder: Path, title: str, axes: Sequence[Axis], jobs: Sequence[SheetJob]):
        self._folder = folder
        self._sheet = ContactSheet(title, axes, jobs)
        self._lock = threading.Lock()  # around what changes the sheet
        self._cells: SimpleQueue[Cell | None] = SimpleQueue()
        self._files: list[Path] = []
        self._thread = threading.Thread(target=self._draw, name="latentgrid-sheet", daemon=True)
        self._thread.start()

    def extend(self, axes: Sequence[Axis], jobs: Sequence[SheetJob]) -> None:
        """Make room for more jobs; `axes` are those of all."""
        with self._lock:
            self._sheet.extend(axes, jobs)

    def place(
        self, number: int, picture: Path | None, status: Status, facts: Mapping[str, str], mark: str = ""
    ) -> None:
        """Show a job that is done. Returns at once."""
        self._cells.put((number, picture, status, facts, mark))

    def close(self) -> list[Path]:
        """Draw what is left; the files of the sheet. What could not be written is logged."""
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
        """Place at least one cell, and go on until it is time to draw; false at the end."""
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
