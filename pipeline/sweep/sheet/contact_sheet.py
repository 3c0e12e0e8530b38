"""Make the contact sheet of a sweep: labelled pictures of all jobs, as PNG files and as a page for the browser.

The sheet grows while the sweep runs. PNG files and page show the same grid (layout.py). The PNG files are pictures to
look at and to show to others. The page also has the settings of each job, and shows its picture enlarged.
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
UNSEEN: Size = (128, 128)  # pixels of a cell while there is no picture
# The page holds picture files of up to HELD_BYTES as they are; pictures of larger files are shrunk to HELD_SIDE pixels.
HELD_BYTES, HELD_SIDE = 256 * 1024, 512


class ContactSheet:
    """The contact sheet of a sweep, on which jobs are pending until they are placed.

    Example:
        sheet = ContactSheet("steps=4,8", find_axes(overrides), jobs)
        sheet.place(0, folder / "0" / "sampler.png", "finished", {"sampler.steps": "4"})
        sheet.write(folder)
    """

    def __init__(self, title: str, axes: Sequence[Axis], jobs: Sequence[SheetJob]):
        """Make a sheet called `title`; `axes` are those that `find_axes` finds in the overrides of `jobs`."""
        self._title = title
        self._jobs: dict[int, SheetJob] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._cells: dict[int, str] = {}
        self._size: Size | None = None
        self.extend(axes, jobs)

    @property
    def pending(self) -> int:
        """The number of jobs that are not placed yet."""
        return len(self._jobs) - len(self._outcomes)

    def extend(self, axes: Sequence[Axis], jobs: Sequence[SheetJob]) -> None:
        """Add the jobs of a sweeper's next batch; `axes` are those of all jobs so far. Placed jobs stay placed."""
        self._jobs.update((job.number, job) for job in jobs)
        self._pages: tuple[Page, ...] = lay_out(axes, list(self._jobs.values()))
        self._page_of = {number: place for place, page in enumerate(self._pages) for number in page.places.values()}
        self._canvases: dict[int, Canvas] = {}
        self._written: dict[int, Path] = {}

    def place(
        self, number: int, picture: Path | None, status: Status, facts: Mapping[str, str], mark: str = ""
    ) -> None:
        """Show the outcome of a job; a job can be placed again.

        picture: a file that Pillow can read. It is read only now. If it cannot be read, the cell has no picture and the
            facts say so.
        facts: settings and results, in the order in which they are shown.
        mark: what is wrong with the results, in a few words.

        The first picture decides the size of all cells. Raises KeyError if the sheet has no such job.
        """
        job = self._jobs[number]
        image, address, problem = _read_picture(picture) if picture else (None, "", "")
        shown_facts = {**facts, "picture": problem} if problem else dict(facts)
        outcome = Outcome(status, shown_facts, address, image.size if image else None, mark)
        self._outcomes[number], self._cells[number] = outcome, make_cell(job, outcome)
        page = self._page_of[number]
        self._written.pop(page, None)
        if image and self._size is None:
            self._size = choose_cell(image.size, self._pages)
            self._canvases.clear()  # their cells are of another size
        elif page in self._canvases:
            _draw_outcome(self._canvases[page], number, outcome, image)

    def write(self, folder: Path) -> list[Path]:
        """Write the page and the PNG files, and return their paths.

        The names are `contact_sheet.html`, `contact_sheet.png` and, for further pages, `contact_sheet_2.png` and so on.
        A PNG that has not changed since it was last written to `folder` is not written again. Raises OutputError.
        """
        open_folder(folder)
        names = [f"{NAME}_{place + 1}.png" if place else f"{NAME}.png" for place in range(len(self._pages))]
        for place, name in enumerate(names):
            if self._written.get(place) != folder / name:
                self._written[place] = write_image(folder, name, self._open_canvas(place).image)
                if self._outcomes.keys() >= set(self._pages[place].places.values()):
                    del self._canvases[place]  # the page is complete
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
    """Return a picture, the `data:` address of it for the page, and what is wrong with the file."""
    try:
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        return None, "", f"cannot be read: {error}"
    mime_type = image.get_format_mimetype() if isinstance(image, ImageFile) else "image/png"
    if len(data) > HELD_BYTES:
        data, mime_type = _shrink(image), "image/jpeg"
    return image, f"data:{mime_type};base64,{base64.b64encode(data).decode()}", ""


def _shrink(image: Image.Image) -> bytes:
    """Return a smaller picture as a JPEG file, because many large pictures would be too much for a browser."""
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
