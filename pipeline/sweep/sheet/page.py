"""Write the contact sheet as a page for the browser: one HTML file that needs no other file and works from disk.

Each cell is a button with the picture of a job. A `<template>` beside it holds what the dialog shows with the enlarged
picture. Everything that comes from the user is escaped, and the page's own policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from PIL import Image

from pipeline.sweep.sheet.layout import Header, Page, SheetJob, Side
from pipeline.sweep.sheet.style import SCRIPT, STYLE

Status = Literal["finished", "reused", "failed"]
REFRESH = 4  # seconds between reloads of the page while jobs are pending
PIXELS = 256  # pictures of up to this size are enlarged unsmoothed
WIDTH = 18  # characters of the widest row header
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    facts: settings and results, in the order in which they are shown.
    picture: a `data:` address, or empty.
    size: width and height of the picture in pixels, before it was shrunk.
    mark: what is wrong with the results, in a few words.
    """

    status: Status
    facts: Mapping[str, str]
    picture: str = ""
    size: tuple[int, int] | None = None
    mark: str = ""

    def open_picture(self) -> Image.Image | None:
        """Return the picture that the address holds, or None if there is none."""
        if not self.picture:
            return None
        return Image.open(io.BytesIO(base64.b64decode(self.picture.partition(",")[2])))


def make_cell(job: SheetJob, outcome: Outcome) -> str:
    """Return the HTML of the cell of a job that is done."""
    name = escape(job.name or f"#{job.number}")
    facts = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in outcome.facts.items()
    )
    mark = f'<span class="mark">{escape(outcome.mark)}</span>' if outcome.mark else ""
    return (
        f'<button id="job-{job.number}" class="{outcome.status}" title="{name}">{_make_view(name, outcome)}{mark}'
        "</button>"
        f'<template><h2 id="name">{name}</h2><p><span class="status {outcome.status}">{outcome.status}</span> '
        f"job #{job.number}</p><table>{facts}</table></template>"
    )


def _make_view(name: str, outcome: Outcome) -> str:
    if outcome.status == "failed":
        return f'<span class="note"><b aria-hidden="true">&#10005;</b>failed<span class="unseen">: {name}</span></span>'
    if not outcome.picture or outcome.size is None:
        return f'<span class="note">no picture<span class="unseen">: {name}</span></span>'
    width, height = outcome.size
    class_attribute = ' class="small"' if max(outcome.size) <= PIXELS else ""
    return f'<img{class_attribute} src="{outcome.picture}" alt="{name}" width="{width}" height="{height}">'


def make_page(
    title: str, pages: Sequence[Page], jobs: Mapping[int, SheetJob], cells: Mapping[int, str], size: tuple[int, int]
) -> str:
    """Return the HTML of the whole page.

    cells: those that `make_cell` made of the jobs that are done, by the number of the job.
    size: width and height in pixels of a cell in the PNG.
    """
    pending = len(jobs) - len(cells)
    count = f"{len(cells)} of {len(jobs)} jobs done" if pending else f"{len(jobs)} jobs"
    attributes = f'lang="en" style="--size: {size[0]}px; --ratio: {size[1] / size[0]:.4f}"'
    if pending:
        attributes += f' data-refresh="{REFRESH}"'
    refresh = f'<noscript><meta http-equiv="refresh" content="{REFRESH}"></noscript>\n' if pending else ""
    sections = "\n".join(_make_section(page, jobs, cells) for page in pages)
    return f"""<!DOCTYPE html>
<html {attributes}>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
{refresh}<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p role="status">{count}</p>
<label>Size <input id="size" type="range" min="48" max="512" step="8" value="{size[0]}"></label>
</header>
<main>
{sections}
</main>
<dialog aria-labelledby="name">
<button id="close" aria-label="Close" title="Close (Esc)">&#10005;</button>
<div id="view"></div>
</dialog>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _make_section(page: Page, jobs: Mapping[int, SheetJob], cells: Mapping[int, str]) -> str:
    title = f"<h2>{escape(page.title)}</h2>\n" if page.title else ""
    headers, breaks = _make_row_headers(page.rows), page.rows.breaks
    lines = []
    for row, (row_headers, places) in enumerate(zip(headers, _make_places(page, jobs, cells), strict=True)):
        apart = ' class="apart"' if row in breaks else ""
        lines.append(f"<tr{apart}>{''.join(row_headers)}{''.join(places)}</tr>")
    rows = "\n".join(lines)
    shape = f'data-rows="{len(headers)}" data-columns="{len(page.columns.lines)}"'
    return f"<section>\n{title}<table {shape}>\n{_make_head(page)}<tbody>\n{rows}\n</tbody>\n</table>\n</section>"


def _make_head(page: Page) -> str:
    """Return the head of a table, which has for each axis of the columns a line with its label and one with its values.

    The last line also has the labels of the axes of the rows.
    """
    styles = _measure_levels(page.rows)
    empty = "".join(f'<td class="corner" style="{style}"></td>' for style in styles)
    corner = "".join(
        f'<td class="corner label" style="{style}">{escape(label)}</td>'
        for style, label in zip(styles, page.rows.labels, strict=True)
    )
    lines: list[str] = []
    breaks = page.columns.breaks
    outer: Sequence[Header] = [Header("", 0, len(page.columns.lines))]
    for label, level in zip(page.columns.labels, page.columns.levels, strict=True):
        labels = "".join(f'<td class="label" colspan="{group.span}">{escape(label)}</td>' for group in outer)
        values = "".join(_make_column_header(header, breaks) for header in level)
        is_last = len(lines) == 2 * len(page.columns.labels) - 2
        lines += [f"<tr>{empty}{labels}</tr>", f"<tr>{corner if is_last else empty}{values}</tr>"]
        outer = level
    return "\n".join(["<thead>", *lines, "</thead>\n"]) if lines else ""


def _make_column_header(header: Header, breaks: frozenset[int]) -> str:
    scope = "colgroup" if header.span > 1 else "col"
    apart = ' class="apart"' if header.start in breaks else ""
    return f'<th{apart} scope="{scope}" colspan="{header.span}">{escape(header.text)}</th>'


def _make_row_headers(side: Side) -> list[list[str]]:
    """Return the headers that begin in each row; those of outer axes span several rows."""
    rows: list[list[str]] = [[] for _ in side.lines]
    for style, level in zip(_measure_levels(side), side.levels, strict=True):
        for header in level:
            scope = "rowgroup" if header.span > 1 else "row"
            attributes = f'scope="{scope}" rowspan="{header.span}" style="{style}"'
            rows[header.start].append(f"<th {attributes}>{escape(header.text)}</th>")
    return rows


def _measure_levels(side: Side) -> list[str]:
    """Return for each axis the CSS that says where its row headers stick and how wide they are."""
    styles, left = [], 0
    for label, level in zip(side.labels, side.levels, strict=True):
        width = min(WIDTH, max(len(label), *(len(header.text) for header in level)) + 2)
        styles.append(f"left: {left}ch; min-width: {width}ch; max-width: {width}ch")
        left += width
    return styles


def _make_places(page: Page, jobs: Mapping[int, SheetJob], cells: Mapping[int, str]) -> list[list[str]]:
    """Return the places of a page by row: the cell of a job, a pending cell, or an empty place."""
    breaks = page.columns.breaks
    apart = [' class="apart"' if column in breaks else "" for column in range(len(page.columns.lines))]
    rows = [[f"<td{class_attribute}></td>" for class_attribute in apart] for _ in page.rows.lines]
    for (row, column), number in page.places.items():
        name = escape(jobs[number].name or f"#{number}")
        cell = cells.get(number) or f'<span class="pending" title="{name}">pending</span>'
        caption = f"<small>{escape(' '.join(page.captions[number]))}</small>" if number in page.captions else ""
        rows[row][column] = f'<td{apart[column]} data-at="{row},{column}">{cell}{caption}</td>'
    return rows
