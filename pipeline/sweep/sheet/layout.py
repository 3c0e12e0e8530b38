"""Lay out the jobs of a sweep on its contact sheet: pages of rows and columns with nested headers. Pure functions.

The axes are in the order of the command line. The last axis gives the columns; if there are four or more axes, the last
two do. The one or two axes before them give nested rows, and all earlier axes give the pages. If a side is too long,
it gives up its outermost axis: more than WIDEST columns give theirs to the rows, more than TALLEST rows to the pages. A
single axis that is too long by itself is cut into even pieces, each on its own page. Rows, columns and pages without
jobs are left out.

With fewer than two axes the jobs are wrapped: they fill even rows of up to WRAP in their order, each with a caption.
Jobs are also wrapped if they do not make a grid, because two of them would share a place or more than half of a page
would be empty. Both happen with sweepers that search instead of taking every combination. The layout takes time linear
in the number of jobs, except for sorting the rows and columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.sweep.axes import Axis, name_job, read_overrides

WRAP = 8
WIDEST = 24
TALLEST = 60
UNSET = "-"  # the header of jobs that do not set the axis

Place = tuple[int, int]
"""Row and column."""
Ranks = tuple[int, ...]
"""For each axis the place of a job's value among the values of the axis."""


@dataclass(frozen=True)
class SheetJob:
    """A job of a sheet.

    number: Hydra's number of the job.
    name: distinguishes it from the other jobs.
    overrides: as on the command line.
    """

    number: int
    name: str
    overrides: Sequence[str]


@dataclass(frozen=True)
class Header:
    """A value that `span` neighbouring rows or columns share, from the one at `start` on."""

    text: str
    start: int
    span: int


@dataclass(frozen=True)
class Side:
    """The rows of a page, or its columns.

    labels: the labels of its axes, outer first.
    lines: for each row or column its value on each axis.
    """

    labels: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    @property
    def levels(self) -> tuple[tuple[Header, ...], ...]:
        """The headers of each axis, outer first. Those of one axis cover the side without gaps or overlaps."""
        return tuple(tuple(self._group(depth)) for depth in range(len(self.labels)))

    @property
    def breaks(self) -> frozenset[int]:
        """The rows or columns where a value of an outer axis changes; they are set apart from the one before."""
        return (
            frozenset(header.start for header in self.levels[-2] if header.start)
            if len(self.labels) > 1
            else frozenset()
        )

    def _group(self, depth: int) -> Iterable[Header]:
        start = 0
        for values, lines in itertools.groupby(self.lines, key=lambda line: line[: depth + 1]):
            span = len(list(lines))
            yield Header(values[depth] or UNSET, start, span)
            start += span


@dataclass(frozen=True)
class Page:
    """One picture of a sheet.

    title: what its jobs have in common and the jobs of other pages do not; empty if there is one page.
    places: the number of the job at each place; a place without a job stays empty.
    captions: the captions of wrapped jobs, by number, in one part for each axis; empty in a grid.
    """

    title: str
    rows: Side
    columns: Side
    places: Mapping[Place, int]
    captions: Mapping[int, Sequence[str]] = field(default_factory=dict)


def lay_out(axes: Sequence[Axis], jobs: Sequence[SheetJob]) -> tuple[Page, ...]:
    """Return the pages of a sheet, on which each job has a place; none without jobs.

    No two jobs may have the same number.

    Example:
        axes = (Axis("sampler.cfg", "cfg", ("1", "2")), Axis("seed", "seed", ("1", "2")))
        jobs = [SheetJob(0, "cfg=1 seed=1", ["sampler.cfg=1", "seed=1"]), ...]
        (page,) = lay_out(axes, jobs)
        page.places[0, 0]  # 0: row cfg=1, column seed=1
    """
    grid = _make_grid(axes, jobs) if len(axes) > 1 else ()
    return grid or _wrap(axes, jobs)


def _wrap(axes: Sequence[Axis], jobs: Sequence[SheetJob]) -> tuple[Page, ...]:
    width = _even_length(len(jobs), WRAP)
    size = width * _even_length(math.ceil(len(jobs) / width), TALLEST)
    pages = []
    for start in range(0, len(jobs), size):
        page_jobs = jobs[start : start + size]
        title = f"#{page_jobs[0].number} to #{page_jobs[-1].number}" if len(jobs) > size else ""
        places = {divmod(index, width): job.number for index, job in enumerate(page_jobs)}
        captions = {job.number: _caption_job(axes, job) for job in page_jobs}
        pages.append(Page(title, _bare_side(math.ceil(len(page_jobs) / width)), _bare_side(width), places, captions))
    return tuple(pages)


def _caption_job(axes: Sequence[Axis], job: SheetJob) -> list[str]:
    return [name_job(job.overrides, [axis]) for axis in axes] or [job.name or f"#{job.number}"]


def _bare_side(length: int) -> Side:
    return Side((), ((),) * length)


def _even_length(count: int, most: int) -> int:
    """Return the length, at least 1 and at most `most`, of the even pieces into which `count` is cut."""
    return math.ceil(count / max(1, math.ceil(count / most))) or 1


def _make_grid(axes: Sequence[Axis], jobs: Sequence[SheetJob]) -> tuple[Page, ...]:
    """Return pages of rows and columns, or none if the jobs make no grid."""
    ranks = _rank_jobs(axes, jobs)
    first_row, first_column = _choose_sides(len(axes), list(ranks.values()))
    groups: dict[Ranks, dict[int, tuple[Ranks, Ranks]]] = {}
    for number, values in ranks.items():
        lines = values[first_row:first_column], values[first_column:]
        groups.setdefault(values[:first_row], {})[number] = lines
    pages: list[Page] = []
    for shared, group in sorted(groups.items()):
        title = _name_values(axes[:first_row], shared)
        pages += _make_pages(title, axes[first_row:first_column], axes[first_column:], group)
    have_own_places = sum(len(page.places) for page in pages) == len(jobs)
    return tuple(pages) if have_own_places and not any(map(_is_sparse, pages)) else ()


def _is_sparse(page: Page) -> bool:
    return 2 * len(page.places) < len(page.rows.lines) * len(page.columns.lines)


def _rank_jobs(axes: Sequence[Axis], jobs: Sequence[SheetJob]) -> dict[int, Ranks]:
    places = [{value: place for place, value in enumerate(axis.values)} for axis in axes]
    ranks = {}
    for job in jobs:
        values = read_overrides(job.overrides)
        ranks[job.number] = tuple(found[values.get(axis.path, "")] for axis, found in zip(axes, places, strict=True))
    return ranks


def _choose_sides(count: int, ranks: Sequence[Ranks]) -> tuple[int, int]:
    """Return the places, among `count` axes, of the first that gives rows and of the first that gives columns."""
    first_row, first_column = max(0, count - 4), count - (2 if count >= 4 else 1)
    while first_column < count - 1 and len({values[first_column:] for values in ranks}) > WIDEST:
        first_column += 1
    while first_row < first_column - 1 and len({values[first_row:first_column] for values in ranks}) > TALLEST:
        first_row += 1
    return first_row, first_column


def _make_pages(
    title: str, row_axes: Sequence[Axis], column_axes: Sequence[Axis], lines: Mapping[int, tuple[Ranks, Ranks]]
) -> list[Page]:
    """Return the page of some jobs, in pieces if it is too large; `lines` has the row and the column of each job."""
    rows = _cut_side(row_axes, {row for row, _ in lines.values()}, TALLEST)
    columns = _cut_side(column_axes, {column for _, column in lines.values()}, WIDEST)
    pieces: dict[Place, dict[Place, int]] = {}
    for number, (row_line, column_line) in lines.items():
        (band, row), (strip, column) = rows.where[row_line], columns.where[column_line]
        pieces.setdefault((band, strip), {})[row, column] = number
    pages = []
    for (band, strip), places in sorted(pieces.items()):
        parts = filter(None, [title, rows.name_piece(band), columns.name_piece(strip)])
        pages.append(Page(" ".join(parts), rows.make_side(band), columns.make_side(strip), places))
    return pages


@dataclass(frozen=True)
class _CutSide:
    """A side in pieces. where: the piece that a line is in, and the line's place in it."""

    axes: Sequence[Axis]
    pieces: Sequence[Sequence[Ranks]]
    where: Mapping[Ranks, Place]

    def make_side(self, piece: int) -> Side:
        values = (tuple(_read_ranks(self.axes, line)) for line in self.pieces[piece])
        return Side(tuple(axis.label for axis in self.axes), tuple(values))

    def name_piece(self, piece: int) -> str:
        """Return which values a piece shows; empty for a whole side. Only a side of a single axis is ever cut."""
        if len(self.pieces) == 1:
            return ""
        values, lines = self.axes[0].values, self.pieces[piece]
        return f"{self.axes[0].label}={values[lines[0][0]] or UNSET} to {values[lines[-1][0]] or UNSET}"


def _cut_side(axes: Sequence[Axis], lines: Iterable[Ranks], most: int) -> _CutSide:
    ordered = sorted(lines)
    length = _even_length(len(ordered), most)
    pieces = [ordered[start : start + length] for start in range(0, len(ordered), length)]
    return _CutSide(axes, pieces, {line: divmod(place, length) for place, line in enumerate(ordered)})


def _name_values(axes: Sequence[Axis], ranks: Ranks) -> str:
    values = _read_ranks(axes, ranks)
    return " ".join(f"{axis.label}={value or UNSET}" for axis, value in zip(axes, values, strict=True))


def _read_ranks(axes: Sequence[Axis], ranks: Ranks) -> list[str]:
    return [axis.word(axis.values[rank]) for axis, rank in zip(axes, ranks, strict=True)]
