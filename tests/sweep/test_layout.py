"""Where jobs stand on a contact sheet: every one once, under headers that tell its values."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sweep.axes import find_axes, read_overrides
from pipeline.sweep.sheet.layout import TALLEST, UNSET, WIDEST, WRAP, Header, Page, SheetJob, Side, lay_out

PATHS = ("unet.unet_name", "lora.strength_model", "sampler.steps", "sampler.cfg", "auraflow.shift", "seed")


def make_jobs(settings: Iterable[Sequence[object]], first: int = 0) -> list[SheetJob]:
    """Jobs with one value for each of the last of PATHS."""
    jobs = []
    for number, values in enumerate(settings, first):
        paths = PATHS[len(PATHS) - len(values) :]
        overrides = [f"{path}={value}" for path, value in zip(paths, values, strict=True)]
        jobs.append(SheetJob(number, f"job {number}", overrides))
    return jobs


def grid(*lengths: int) -> list[SheetJob]:
    return make_jobs(itertools.product(*map(range, lengths)))


def lay(jobs: Sequence[SheetJob]) -> tuple[Page, ...]:
    return lay_out(find_axes([job.overrides for job in jobs]), jobs)


def shape(page: Page) -> tuple[tuple[str, ...], int, tuple[str, ...], int]:
    return page.rows.labels, len(page.rows.lines), page.columns.labels, len(page.columns.lines)


def check_sides(page: Page) -> None:
    for side in (page.rows, page.columns):
        for level in side.levels:
            covered = [place for header in level for place in range(header.start, header.start + header.span)]
            assert covered == list(range(len(side.lines)))
        for (label, level), place in itertools.product(enumerate(side.levels), range(len(side.lines))):
            text = next(header.text for header in level if 0 <= place - header.start < header.span)
            assert text == (side.lines[place][label] or UNSET)


def check_layout(pages: Sequence[Page], jobs: Sequence[SheetJob]) -> None:
    """Each job stands once, within its page, where the headers and the title say what it is."""
    assert Counter(number for page in pages for number in page.places.values()) == {job.number: 1 for job in jobs}
    settings = {job.number: read_overrides(job.overrides) for job in jobs}
    axes = find_axes([job.overrides for job in jobs])
    for page in pages:
        assert len(page.rows.lines) <= TALLEST
        assert len(page.columns.lines) <= WIDEST
        check_sides(page)
        for (row, column), number in page.places.items():
            found = dict(zip(page.rows.labels, page.rows.lines[row], strict=True))
            found |= dict(zip(page.columns.labels, page.columns.lines[column], strict=True))
            wanted = {axis.label: settings[number].get(axis.path, "") for axis in axes}
            assert found.items() <= wanted.items()
            caption = " ".join(page.captions.get(number, [page.title]))
            for label in wanted.keys() - found.keys():
                assert f"{label}={wanted[label]}" in caption
        if not page.captions:
            assert 2 * len(page.places) >= len(page.rows.lines) * len(page.columns.lines)


VALUES = st.lists(st.tuples(*[st.integers(0, 3)] * 6), min_size=1, max_size=40, unique=True)


@settings(deadline=None)
@given(VALUES, st.integers(1, 6), st.integers(0, 3))
def test_any_jobs_find_their_places(settings: list[tuple[int, ...]], used: int, first: int):
    """Those of a search: holes, and several jobs with the same values."""
    jobs = make_jobs((values[:used] for values in settings), first)
    check_layout(lay(jobs), jobs)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.randoms())
def test_a_whole_grid_in_any_order_has_headers(lengths: list[int], random):
    jobs = grid(*lengths)[:600]
    random.shuffle(jobs)
    pages = lay(jobs)
    check_layout(pages, jobs)
    if len(jobs) == len(grid(*lengths)) and sum(length > 1 for length in lengths) > 1:
        assert not any(page.captions for page in pages)


def test_no_axis_is_one_cell():
    (page,) = lay([SheetJob(7, "only", ["seed=1"])])
    assert (page.places, page.captions, page.title) == ({(0, 0): 7}, {7: ["only"]}, "")
    assert lay_out((), [SheetJob(7, "", [])])[0].captions == {7: ["#7"]}
    assert lay([]) == ()


def test_one_axis_wraps_into_even_rows():
    (page,) = lay(grid(8))
    assert shape(page) == ((), 1, (), WRAP)
    (page,) = lay(grid(10))
    assert shape(page) == ((), 2, (), 5)
    assert page.captions[7] == ["seed=7"]
    assert page.places[1, 2] == 7


def test_two_axes_are_rows_and_columns():
    (page,) = lay(grid(2, 3))
    assert (page.rows, page.columns) == (
        Side(("shift",), (("0",), ("1",))),
        Side(("seed",), (("0",), ("1",), ("2",))),
    )
    assert page.places == {(row, column): 3 * row + column for row in range(2) for column in range(3)}


def test_three_axes_nest_the_rows_and_four_the_columns_too():
    (page,) = lay(grid(2, 2, 3))
    assert shape(page) == (("cfg", "shift"), 4, ("seed",), 3)
    outer, inner = page.rows.levels
    assert outer == (Header("0", 0, 2), Header("1", 2, 2))
    assert [header.text for header in inner] == ["0", "1", "0", "1"]
    assert page.rows.breaks == {2}
    assert page.columns.breaks == frozenset()
    (page,) = lay(grid(2, 2, 3, 4))
    assert shape(page) == (("steps", "cfg"), 4, ("shift", "seed"), 12)


def test_more_axes_give_pages():
    pages = lay(grid(2, 3, 2, 2, 2, 2))
    assert [page.title for page in pages[:2]] == ["unet=0 lora=0", "unet=0 lora=1"]
    assert len(pages) == 6
    assert {shape(page) for page in pages} == {(("steps", "cfg"), 4, ("shift", "seed"), 4)}


def test_too_many_columns_become_rows_and_too_many_rows_pages():
    (page,) = lay(grid(2, 2, 5, 5))
    assert shape(page) == (("steps", "cfg", "shift"), 20, ("seed",), 5)
    pages = lay(grid(3, 40, 2))
    assert [shape(page) for page in pages] == [(("shift",), 40, ("seed",), 2)] * 3
    assert [page.title for page in pages] == ["cfg=0", "cfg=1", "cfg=2"]


def test_a_long_axis_is_cut_evenly():
    pages = lay(grid(2, 30))
    assert [page.title for page in pages] == ["seed=0 to 14", "seed=15 to 29"]
    pages = lay(grid(70, 2))
    assert [page.title for page in pages] == ["shift=0 to 34", "shift=35 to 69"]
    pages = lay(grid(500))
    assert [page.title for page in pages] == ["#0 to #255", "#256 to #499"]


def test_a_grid_may_have_holes():
    jobs = [job for job in grid(3, 4) if job.number not in (2, 5, 6)]
    (page,) = lay(jobs)
    assert shape(page) == (("shift",), 3, ("seed",), 4)
    assert len(page.places) == 9


def test_jobs_of_a_search_are_wrapped():
    (page,) = lay(make_jobs([(number, 10 * number) for number in range(5)]))
    assert shape(page) == ((), 1, (), 5)
    assert page.captions[3] == ["shift=3", "seed=30"]


def test_jobs_of_one_place_are_wrapped():
    jobs = make_jobs([(0, 0), (0, 1), (1, 0), (1, 1), (0, 0)])
    (page,) = lay(jobs)
    assert list(page.places.values()) == [0, 1, 2, 3, 4]
    assert page.rows.labels == ()


def test_an_axis_that_a_job_leaves_alone_has_a_header():
    jobs = [*grid(2, 2), SheetJob(4, "bare", ["auraflow.shift=0"])]
    (page,) = lay(jobs)
    assert [header.text for header in page.columns.levels[0]] == ["0", "1", UNSET]


def test_headers_and_titles_say_on_and_off():
    rows = itertools.product(("true", "false"), (1, 2))
    jobs = [SheetJob(number, "", [f"lora._bypass_={off}", f"seed={seed}"]) for number, (off, seed) in enumerate(rows)]
    (page,) = lay(jobs)
    assert [header.text for header in page.rows.levels[0]] == ["off", "on"]
    (page,) = lay(jobs[::2])
    assert list(page.captions.values()) == [["lora=off"], ["lora=on"]]
