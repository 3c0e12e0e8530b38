"""Draw the picture of one page of a contact sheet, headers and cells, with Pillow and its own font.

The picture is retained while a sweep runs. A cell is painted over when its job is done.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pipeline.sweep.sheet.layout import Header, Page, Side

# All lengths are in pixels.
SMALLEST, LARGEST = 64, 256  # sides of a cell
LONGEST = 4096  # the cells of a page side by side, which limits them further: a page takes some 50 MB at most
NARROWEST = 320  # the width of a page, so that its title can be read
MARGIN, GAP, GROUP_GAP, PADDING = 16, 4, 16, 10
ROW_HEADER = 150  # the largest width of one
LINES = 3  # the most lines of a header or a caption; longer text is shortened

PAPER, INK, MUTED, RULE = "#ffffff", "#1f2328", "#6e7781", "#d0d7de"
EMPTY, WAITING, BROKEN, FAILURE = "#f3f4f6", "#aab1b9", "#fdeeee", "#c0362c"

Size = tuple[int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def choose_cell(picture: Size, pages: Sequence[Page]) -> Size:
    """Return width and height of all cells in pixels, chosen from those of the first picture."""
    longest = max((max(len(page.rows.lines), len(page.columns.lines)) for page in pages), default=1)
    largest_side = max(SMALLEST, min(LARGEST, LONGEST // longest))
    scale = min(largest_side / max(picture), max(1, SMALLEST // max(picture)))
    width, height = (max(SMALLEST, round(side * scale)) for side in picture)
    return width, height


def fit_picture(picture: Image.Image, cell: Size) -> Image.Image:
    """Return a picture in RGB, as large as a cell allows; a small one is enlarged by a whole factor, unsmoothed."""
    fitted = picture.convert("RGB")
    factor = min(cell[0] // picture.width, cell[1] // picture.height)
    if factor > 1:
        return fitted.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    fitted.thumbnail(cell, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return fitted


def fit_text(text: str, font: Font, width: float, most: int) -> list[str]:
    """Return `text` in at most `most` lines, none wider than `width` pixels; an ellipsis replaces omitted text."""
    rest = " ".join(text.split())
    lines: list[str] = []
    while rest and len(lines) < most:
        end = _count_fitting(rest, font, width)
        if end < len(rest) and len(lines) == most - 1:
            end = _count_fitting(rest, font, width - font.getlength("…"))
            return [*lines, rest[:end].rstrip() + "…"]
        if end < len(rest):
            end = max((place for place in range(1, end + 1) if _can_break(rest, place)), default=max(end, 1))
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return lines


def _count_fitting(text: str, font: Font, width: float) -> int:
    prefix = text[:200]
    return bisect.bisect_right(range(1, len(prefix) + 1), width, key=lambda count: font.getlength(prefix[:count]))


def _can_break(text: str, place: int) -> bool:
    return text[place] == " " or (text[place - 1] in " -_/,;:=" and text[place] not in " -_/,;:=")


@functools.cache
def _load_font(size: int) -> Font:
    return ImageFont.load_default(size)


class Canvas:
    """The picture of a page, on which all jobs are pending until they are drawn.

    Example:
        canvas = Canvas("steps=4,8", page, choose_cell(picture.size, [page]))
        canvas.draw_picture(0, picture)
        canvas.image.save("contact_sheet.png")
    """

    def __init__(self, title: str, page: Page, cell: Size):
        self._page, self._cell = page, cell
        self._places = {number: place for place, number in page.places.items()}
        size = max(12, min(20, cell[0] // 9))
        self._font, self._title_font, self._line = _load_font(size), _load_font(size + 4), round(size * 1.3)
        self._widths = [self._measure_rows(*level) for level in _pair(page.rows)]
        self._x = _spread(page.columns, MARGIN + sum(self._widths), cell[0])
        width = max(NARROWEST, self._x[-1] + cell[0] + MARGIN)
        self._title = fit_text(title, self._title_font, width - 2 * MARGIN, 2)
        self._subtitle = fit_text(page.title, self._font, width - 2 * MARGIN, 2)
        self._columns_top = MARGIN + len(self._title) * (self._line + 6) + len(self._subtitle) * self._line + 10
        self._heights = [self._measure_columns(level) for level in page.columns.levels]
        self._captions = {number: self._fit_caption(parts) for number, parts in page.captions.items()}
        below = self._line * max(map(len, self._captions.values()), default=0) + (PADDING if self._captions else 0)
        self._y = _spread(page.rows, self._columns_top + sum(self._heights), cell[1] + below)
        self.image = Image.new("RGB", (width, self._y[-1] + cell[1] + below + MARGIN), PAPER)
        self._pen = ImageDraw.Draw(self.image)
        self._draw_titles()
        self._draw_column_headers()
        self._draw_row_headers()
        self._draw_cells()

    def find_box(self, number: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of a job's cell in pixels; right and bottom are just outside of it."""
        row, column = self._places[number]
        x, y = self._x[column], self._y[row]
        return x, y, x + self._cell[0], y + self._cell[1]

    def draw_picture(self, number: int, picture: Image.Image) -> None:
        """Draw a picture, fitted into the cell of a job."""
        picture = fit_picture(picture, self._cell)
        self._clear(number, EMPTY)
        left, top, _, _ = self.find_box(number)
        margins = (self._cell[0] - picture.width) // 2, (self._cell[1] - picture.height) // 2
        self.image.paste(picture, (left + margins[0], top + margins[1]))

    def draw_text(self, number: int, text: str) -> None:
        """Draw a word in the cell of a job in place of a picture."""
        x, y = self._clear(number, EMPTY)
        self._write(fit_text(text, self._font, self._cell[0], LINES), x, y - self._line // 2, WAITING, "m")

    def draw_failed(self, number: int) -> None:
        """Draw a cross and the word "failed" in the cell of a job."""
        x, y = self._clear(number, BROKEN)
        arm, y = self._cell[1] // 12, y - self._line // 2
        self._pen.line((x - arm, y - arm, x + arm, y + arm), FAILURE, 3)
        self._pen.line((x - arm, y + arm, x + arm, y - arm), FAILURE, 3)
        self._write(["failed"], x, y + arm + 4, FAILURE, "m")

    def draw_mark(self, number: int, text: str) -> None:
        """Draw what is wrong with the results of a job along the lower edge of its cell, over its picture."""
        left, _, right, bottom = self.find_box(number)
        lines = fit_text(text, self._font, right - left - 4, 2)
        top = bottom - len(lines) * self._line - 4
        self._pen.rectangle((left, top, right - 1, bottom - 1), BROKEN)
        self._write(lines, (left + right) // 2, top + 2, FAILURE, "m")

    def _clear(self, number: int, fill: str) -> tuple[int, int]:
        """Fill the cell of a job with a colour and return the cell's centre."""
        left, top, right, bottom = self.find_box(number)
        self._pen.rectangle((left, top, right - 1, bottom - 1), fill)
        return (left + right) // 2, (top + bottom) // 2

    def _draw_titles(self) -> None:
        for place, line in enumerate(self._title):
            self._pen.text((MARGIN, MARGIN + place * (self._line + 6)), line, INK, self._title_font)
        self._write(self._subtitle, MARGIN, MARGIN + len(self._title) * (self._line + 6), MUTED, "l")

    def _draw_column_headers(self) -> None:
        """Draw the values of each axis, and its label above them once in every group of the next outer axis."""
        top = self._columns_top
        outer: Sequence[Header] = [Header("", 0, len(self._x))]
        for depth, (label, level) in enumerate(_pair(self._page.columns)):
            for group in outer:
                left, right = _find_ends(self._x, group, self._cell[0])
                self._write(fit_text(label, self._font, right - left, 1), (left + right) // 2, top, MUTED, "m")
            bottom = top + self._heights[depth]
            is_inner = depth == len(self._heights) - 1
            for header in level:
                left, right = _find_ends(self._x, header, self._cell[0])
                lines = fit_text(header.text, self._font, right - left, LINES)
                self._write(lines, (left + right) // 2, bottom - 6 - len(lines) * self._line, INK, "m")
                if not is_inner:
                    self._pen.line((left, bottom - 4, right - 1, bottom - 4), RULE)
            top, outer = bottom, level

    def _draw_row_headers(self) -> None:
        """Draw the values of each axis in a column, and its label on top of them."""
        right = MARGIN - PADDING
        for depth, (label, level) in enumerate(_pair(self._page.rows)):
            width, right = self._widths[depth] - PADDING, right + self._widths[depth]
            self._write(fit_text(label, self._font, width, 1), right, self._y[0] - 6 - self._line, MUTED, "r")
            for header in level:
                top, bottom = _find_ends(self._y, header, self._cell[1])
                lines = fit_text(header.text, self._font, width, max(1, min(4, (bottom - top) // self._line)))
                self._write(lines, right, (top + bottom - len(lines) * self._line) // 2, INK, "r")
                if depth < len(self._widths) - 1:
                    self._pen.line((right + 5, top, right + 5, bottom - 1), RULE)

    def _draw_cells(self) -> None:
        for number in self._places:
            self.draw_text(number, "pending")
        for number, lines in self._captions.items():
            left, _, right, bottom = self.find_box(number)
            self._write(lines, (left + right) // 2, bottom + 2, INK, "m")

    def _write(self, lines: Sequence[str], x: int, y: int, fill: str, align: str) -> None:
        """Draw lines below `y`. By `align`, `x` is their left (l), middle (m) or right (r)."""
        for place, line in enumerate(lines):
            self._pen.text((x, y + self._line * (place + 0.5)), line, fill, self._font, anchor=f"{align}m")

    def _fit_caption(self, parts: Sequence[str]) -> list[str]:
        """Return the lines of a caption: one for each part if there are two to four, else wrapped text."""
        if not 1 < len(parts) <= LINES + 1:
            return fit_text(" ".join(parts), self._font, self._cell[0], LINES)
        return [line for part in parts for line in fit_text(part, self._font, self._cell[0], 1)]

    def _measure_rows(self, label: str, level: Sequence[Header]) -> int:
        longest = max(self._font.getlength(text) for text in [label, *(header.text for header in level)])
        return min(ROW_HEADER, round(longest) + 1) + PADDING

    def _measure_columns(self, level: Sequence[Header]) -> int:
        widths = [_find_ends(self._x, header, self._cell[0]) for header in level]
        lines = [
            len(fit_text(header.text, self._font, right - left, LINES))
            for header, (left, right) in zip(level, widths, strict=True)
        ]
        return (1 + max(lines)) * self._line + 6


def _pair(side: Side) -> list[tuple[str, tuple[Header, ...]]]:
    """Return the label and the headers of each axis."""
    return list(zip(side.labels, side.levels, strict=True))


def _spread(side: Side, start: int, length: int) -> list[int]:
    """Return where each row or column of `length` begins; the gaps between groups of the outer axes are wider."""
    places: list[int] = []
    breaks = side.breaks
    for index in range(len(side.lines)):
        gap = GROUP_GAP if index in breaks else GAP
        places.append(places[-1] + length + gap if places else start)
    return places


def _find_ends(places: Sequence[int], header: Header, length: int) -> tuple[int, int]:
    return places[header.start], places[header.start + header.span - 1] + length
