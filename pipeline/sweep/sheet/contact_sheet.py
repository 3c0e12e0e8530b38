"""The contact sheet of a sweep: a picture of every job, labelled, as PNG files and as a page for the browser.

It grows while the sweep runs. Both show the same grid (layout.py); the PNG is for looking and showing, the page has the
settings of each job and shows its picture large.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from PIL.ImageFile import ImageFile

from pipeline.record.artifacts import open_folder, write_image, write_text
from pipeline.sweep.axes import Axis
from pipeline.sweep.sheet.canvas import Canvas, Size, choose_cell
from pipeline.sweep.sheet.layout import Page, SheetJob, lay_out
from pipeline.sweep.sheet.page import Outcome, Status, make_cell, make_page

NAME = "contact_sheet"
UNSEEN: Size = (128, 128)  # a cell, while there is no picture
HELD_BYTES, HELD_SIDE = 256 * 1024, 512  # the largest file that the page holds as it is; what others are shrunk to


class ContactSheet:
    """A sheet whose jobs are pending, until they are placed."""

    def __init__(self, title: str, axes: Sequence[Axis], jobs: Sequence[SheetJob]):
        """`axes` as `find_axes` finds them in the overrides of `jobs`; title: what the sweep is called."""
        self._title = title
        self._jobs: dict[int, SheetJob] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._cells: dict[int, str] = {}
        self._size: Size | None = None
        self.extend(axes, jobs)

    @property
    def pending(self) -> int:
        """How many jobs are not placed."""
        return len(self._jobs) - len(self._outcomes)

    def extend(self, axes: Sequence[Axis], jobs: Sequence[SheetJob]) -> None:
        """Add jobs, those of a sweeper's next batch; `axes` are those of all jobs by now. What is placed stays so."""
        self._jobs.update((job.number, job) for job in jobs)
        self._pages: tuple[Page, ...] = lay_out(axes, list(self._jobs.values()))
        self._page_of = {number: place for place, page in enumerate(self._pages) for number in page.places.values()}
        self._canvases: dict[int, Canvas] = {}
        self._written: dict[int, Path] = {}

    def place(
        self, number: int, picture: Path | None, status: Status, facts: Mapping[str, str], mark: str = ""
    ) -> None:
        """Show what came of a job, for good or until it is placed again.

        picture: a file that Pillow reads, read once and now; one that cannot be read counts as none, and the facts say
        so. facts: settings and results, in the order to show them. mark: what is wrong with the results, in a few
        words. The first picture decides the size of all cells.
        Raises KeyError if the sheet has no such job.
        """
        job = self._jobs[number]
        image, held, fault = _read_picture(picture) if picture else (None, "", "")
        known = {**facts, "picture": fault} if fault else dict(facts)
        outcome = Outcome(status, known, held, image.size if image else None, mark)
        self._outcomes[number], self._cells[number] = outcome, make_cell(job, outcome)
        page = self._page_of[number]
        self._written.pop(page, None)
        if image and self._size is None:
            self._size = choose_cell(image.size, self._pages)
            self._canvases.clear()  # their cells are of another size
        elif page in self._canvases:
            _draw_outcome(self._canvases[page], number, outcome, image)

    def write(self, folder: Path) -> list[Path]:
        """Write `contact_sheet.html` and `contact_sheet.png`, for further pages `contact_sheet_2.png` ...; their paths.

        A PNG that has not changed since it was last written there is left alone. Raises OutputError.
        """
        open_folder(folder)
        names = [f"{NAME}_{place + 1}.png" if place else f"{NAME}.png" for place in range(len(self._pages))]
        for place, name in enumerate(names):
            if self._written.get(place) != folder / name:
                self._written[place] = write_image(folder, name, self._open_canvas(place).image)
                if self._outcomes.keys() >= set(self._pages[place].places.values()):
                    del self._canvases[place]  # nothing more comes
        page = make_page(self._title, self._pages, self._jobs, self._cells, self._size or UNSEEN)
        return [*(folder / name for name in names), write_text(folder, f"{NAME}.html", page)]

    def _open_canvas(self, place: int) -> Canvas:
        if place not in self._canvases:
            page = self._pages[place]
            canvas = self._canvases[place] = Canvas(self._title, page, self._size or UNSEEN)
            for number in self._outcomes.keys() & set(page.places.values()):
                outcome = self._outcomes[number]
                _draw_outcome(canvas, number, outcome, outcome.open_picture())
        return self._canvases[place]


def _read_picture(path: Path) -> tuple[Image.Image | None, str, str]:
    """The picture, what the page holds of its file, and what is wrong with it."""
    try:
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        return None, "", f"cannot be read: {error}"
    kind = image.get_format_mimetype() if isinstance(image, ImageFile) else "image/png"
    if len(data) > HELD_BYTES:
        data, kind = _shrink(image), "image/jpeg"
    return image, f"data:{kind};base64,{base64.b64encode(data).decode()}", ""


def _shrink(image: Image.Image) -> bytes:
    """A page of many large pictures would be too much for a browser."""
    small = image.convert("RGB")
    small.thumbnail((HELD_SIDE, HELD_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=90)
    return file.getvalue()


def _draw_outcome(canvas: Canvas, number: int, outcome: Outcome, image: Image.Image | None) -> None:
    if outcome.status == "failed":
        canvas.draw_failed(number)
    elif image:
        canvas.draw_picture(number, image)
    else:
        canvas.draw_text(number, "no picture")
    if outcome.mark:
        canvas.draw_mark(number, outcome.mark)
