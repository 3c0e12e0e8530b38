"""The contact sheet as it grows: the pixels of the picture, and the page for the browser."""

from __future__ import annotations

import base64
import html
import itertools
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from patience import PATIENCE
from PIL import Image, ImageDraw

from pipeline.errors import OutputError
from pipeline.sweep.axes import find_axes, name_job, read_overrides
from pipeline.sweep.sheet.canvas import SMALLEST, Canvas, choose_cell, fit_picture, fit_text
from pipeline.sweep.sheet.contact_sheet import ContactSheet
from pipeline.sweep.sheet.layout import SheetJob, lay_out

RED, GREEN, BLUE = (200, 30, 30), (30, 160, 60), (40, 60, 200)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def make_jobs(settings: Sequence[Sequence[str]], first: int = 0) -> list[SheetJob]:
    axes = find_axes(settings)
    return [SheetJob(number, name_job(one, axes), one) for number, one in enumerate(settings, first)]


def make_grid(steps: Sequence[object] = (2, 4), seeds: Sequence[object] = (1, 2, 3)) -> list[SheetJob]:
    return make_jobs([[f"sampler.steps={one}", f"seed={seed}"] for one, seed in itertools.product(steps, seeds)])


def make_sheet(jobs: Sequence[SheetJob], title: str = "steps=2,4 seed=1,2,3") -> ContactSheet:
    return ContactSheet(title, find_axes([job.overrides for job in jobs]), jobs)


@pytest.fixture
def paint(tmp_path):
    """Makes a picture of one colour; its path."""

    def call(colour: tuple[int, int, int], size: tuple[int, int] = (80, 80)) -> Path:
        path = tmp_path / f"{'-'.join(map(str, (*colour, *size)))}.png"
        Image.new("RGB", size, colour).save(path)
        return path

    return call


def read_cells(path: Path, jobs: Sequence[SheetJob], title: str, cell: tuple[int, int]) -> dict[int, Image.Image]:
    """The cells of a sheet of one page."""
    (page,) = lay_out(find_axes([job.overrides for job in jobs]), jobs)
    canvas = Canvas(title, page, cell)
    with Image.open(path) as sheet:
        assert sheet.size == canvas.image.size
        return {job.number: sheet.crop(canvas.find_box(job.number)) for job in jobs}


def is_plain(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return image.getcolors() == [(image.width * image.height, colour)]


class PageReader(HTMLParser):
    """What a page shows in each place, and what it refers to."""

    def __init__(self, text: str):
        super().__init__()
        self.places: dict[str, str] = {}
        self.buttons: dict[str, dict[str, str | None]] = {}
        self.sources: list[str] = []
        self.headers: list[str] = []
        self.tags: list[str] = []
        self._place, self._header = "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        if "data-at" in found:
            self._place = found["data-at"]
            self.places[self._place] = ""
        if tag == "button" and self._place:
            self.buttons[self._place] = found
        if tag == "th" and ("rowspan" in found or "colspan" in found):
            self.headers.append("")
            self._header, self._place = True, ""
        self.sources += [found[key] for key in ("src", "href", "srcset", "action", "data") if found.get(key)]

    def handle_endtag(self, tag):
        self._header = self._header and tag != "th"
        if tag == "tbody":
            self._place = ""

    def handle_data(self, data):
        if self._header:
            self.headers[-1] += data
        if self._place:
            self.places[self._place] += data + "\n"


def read_page(folder: Path) -> PageReader:
    return PageReader((folder / "contact_sheet.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("has_picture", [True, False])
def test_a_mark_stands_on_the_cell_and_the_rest_of_it_shows_as_before(tmp_path, paint, has_picture):
    jobs = make_grid()
    sheet = make_sheet(jobs)
    for job in jobs:
        mark = "not finite" if job.number == 1 else ""
        picture = paint(RED) if has_picture or job.number != 1 else None
        sheet.place(job.number, picture, "finished", {"not finite": "sampler 12.5 %"} if mark else {}, mark)
    path, _ = sheet.write(tmp_path / "out")
    cells = read_cells(path, jobs, "steps=2,4 seed=1,2,3", (80, 80))
    assert all(is_plain(cells[number], RED) for number in (0, 2, 3, 4, 5))
    colours = {colour for _, colour in cells[1].getcolors()}
    assert (0xC0, 0x36, 0x2C) in colours  # the text of a failure
    assert not has_picture or is_plain(cells[1].crop((0, 0, 80, 40)), RED)
    page = read_page(tmp_path / "out")
    marked = [place for place, text in page.places.items() if "not finite" in text]
    assert marked == ["0,1"]
    assert "sampler 12.5 %" in page.places["0,1"]


def test_a_mark_outlasts_a_sheet_that_is_drawn_anew(tmp_path, paint):
    jobs = make_grid()
    sheet = make_sheet(jobs)
    sheet.place(1, paint(RED), "reused", {}, "not finite")
    sheet.extend(find_axes([job.overrides for job in jobs]), jobs)
    path, _ = sheet.write(tmp_path / "out")
    cell = read_cells(path, jobs, "steps=2,4 seed=1,2,3", (80, 80))[1]
    assert not is_plain(cell, RED)


def test_pictures_stand_where_the_layout_says(tmp_path, paint):
    jobs = make_grid()
    sheet = make_sheet(jobs)
    colours = [RED, GREEN, BLUE, GREEN, BLUE, RED]
    for job, colour in zip(reversed(jobs), reversed(colours), strict=True):
        sheet.place(job.number, paint(colour), "finished", {})
    paths = sheet.write(tmp_path / "out")
    assert [path.name for path in paths] == ["contact_sheet.png", "contact_sheet.html"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["contact_sheet.html", "contact_sheet.png"]
    cells = read_cells(paths[0], jobs, "steps=2,4 seed=1,2,3", (80, 80))
    assert all(is_plain(cells[job.number], colour) for job, colour in zip(jobs, colours, strict=True))


def test_a_sheet_grows(tmp_path, paint):
    jobs = make_grid()
    sheet = make_sheet(jobs)
    sheet.write(tmp_path)
    page = read_page(tmp_path)
    assert all(text.strip() == "pending" for text in page.places.values())
    assert "meta" in page.tags[page.tags.index("noscript") :]
    sheet.place(1, paint(RED), "finished", {})
    sheet.write(tmp_path)
    cells = read_cells(tmp_path / "contact_sheet.png", jobs, "steps=2,4 seed=1,2,3", (80, 80))
    assert [number for number, cell in cells.items() if is_plain(cell, RED)] == [1]
    assert sheet.pending == 5
    assert "1 of 6 jobs done" in (tmp_path / "contact_sheet.html").read_text()
    for number in (0, 2, 3, 4, 5):
        sheet.place(number, paint(GREEN), "reused", {})
    sheet.write(tmp_path)
    cells = read_cells(tmp_path / "contact_sheet.png", jobs, "steps=2,4 seed=1,2,3", (80, 80))
    assert all(is_plain(cell, RED if number == 1 else GREEN) for number, cell in cells.items())
    page = read_page(tmp_path)
    assert "noscript" not in page.tags
    assert "data-refresh" not in (tmp_path / "contact_sheet.html").read_text().partition("<style>")[0]
    assert page.buttons["0,0"]["class"] == "reused"


def test_a_job_that_is_placed_again_is_painted_over(tmp_path, paint):
    jobs = make_grid((2,), (1, 2))
    sheet = make_sheet(jobs)
    sheet.place(0, paint(RED), "finished", {})
    sheet.place(1, None, "failed", {})
    sheet.write(tmp_path)
    sheet.place(1, paint(BLUE), "finished", {})
    sheet.write(tmp_path)
    cells = read_cells(tmp_path / "contact_sheet.png", jobs, "steps=2,4 seed=1,2,3", (80, 80))
    assert is_plain(cells[0], RED)
    assert is_plain(cells[1], BLUE)


def test_a_failed_job_is_marked_and_says_why(tmp_path, paint):
    jobs = make_grid()
    sheet = make_sheet(jobs)
    sheet.place(0, paint(BLUE), "finished", {})
    sheet.place(3, None, "failed", {"error": "sampler: out of memory"})
    sheet.write(tmp_path)
    cells = read_cells(tmp_path / "contact_sheet.png", jobs, "steps=2,4 seed=1,2,3", (80, 80))
    middle = cells[3].getpixel((40, 40 - 9))
    assert middle[0] > 150 > middle[1]
    assert cells[3].getpixel((2, 2)) != cells[4].getpixel((2, 2))
    page = read_page(tmp_path)
    assert "failed" in page.places["1,0"]
    assert "sampler: out of memory" in page.places["1,0"]


def test_a_picture_that_cannot_be_read_counts_as_none(tmp_path, paint):
    sheet = make_sheet(make_grid())
    broken = paint(RED)
    broken.write_bytes(broken.read_bytes()[:60])
    sheet.place(0, broken, "finished", {"seed": "1"})
    sheet.place(1, tmp_path / "gone.png", "finished", {})
    sheet.place(2, None, "finished", {})
    sheet.write(tmp_path)
    page = read_page(tmp_path)
    assert "cannot be read" in page.places["0,0"]
    assert "No such file" in page.places["0,1"]
    assert "no picture" in page.places["0,2"]
    assert not page.sources


def test_a_job_of_another_sheet_is_refused():
    with pytest.raises(KeyError):
        make_sheet(make_grid()).place(99, None, "failed", {})


def test_a_hole_is_blank(tmp_path, paint):
    jobs = [job for job in make_grid() if job.number != 4]
    sheet = make_sheet(jobs)
    for job in jobs:
        sheet.place(job.number, paint(RED), "finished", {})
    sheet.write(tmp_path)
    assert "1,1" not in read_page(tmp_path).places
    (page,) = lay_out(find_axes([job.overrides for job in jobs]), jobs)
    canvas = Canvas("steps=2,4 seed=1,2,3", page, (80, 80))
    left, top = canvas.find_box(1)[0], canvas.find_box(3)[1]
    with Image.open(tmp_path / "contact_sheet.png") as image:
        assert is_plain(image.crop((left, top, left + 80, top + 80)), (255, 255, 255))


def test_further_pages_are_further_files_and_only_what_changed_is_written(tmp_path, paint):
    jobs = make_grid((2, 4), range(30))
    sheet = make_sheet(jobs)
    names = ["contact_sheet.png", "contact_sheet_2.png", "contact_sheet.html"]
    assert [path.name for path in sheet.write(tmp_path)] == names
    sheet.place(0, paint(RED, (16, 16)), "finished", {})  # decides the size of all cells
    sheet.write(tmp_path)
    (tmp_path / names[0]).unlink()
    sheet.place(29, paint(GREEN, (16, 16)), "finished", {})
    assert [path.name for path in sheet.write(tmp_path)] == names
    assert not (tmp_path / names[0]).exists()
    assert [path.exists() for path in sheet.write(tmp_path / "elsewhere")] == [True] * 3
    assert "seed=15 to 29" in (tmp_path / names[2]).read_text()


def test_a_sheet_takes_the_jobs_of_a_further_batch(tmp_path, paint):
    jobs = make_grid()
    sheet = make_sheet(jobs[:3], "search")
    sheet.place(0, paint(RED), "finished", {})
    sheet.write(tmp_path)
    sheet.extend(find_axes([job.overrides for job in jobs]), jobs[3:])
    sheet.place(5, paint(BLUE), "finished", {})
    sheet.write(tmp_path)
    cells = read_cells(tmp_path / "contact_sheet.png", jobs, "search", (80, 80))
    assert is_plain(cells[0], RED)
    assert is_plain(cells[5], BLUE)
    assert sheet.pending == 4


def test_cells_have_the_first_pictures_shape_within_limits():
    pages = lay_out((), [SheetJob(0, "", [])])
    sizes = [(128, 128), (1024, 512), (16, 16), (40, 20), (90, 10)]
    assert [choose_cell(size, pages) for size in sizes] == [(128, 128), (256, 128), (64, 64), (64, 64), (90, 64)]
    jobs = make_grid(range(60), (1, 2))
    assert choose_cell((512, 512), lay_out(find_axes([job.overrides for job in jobs]), jobs)) == (68, 68)


def test_a_picture_keeps_its_shape():
    sizes = [(128, 128), (512, 256), (30, 60), (20, 20), (64, 1)]
    assert [fit_picture(Image.new("RGB", size), (128, 128)).size for size in sizes] == [
        (128, 128),
        (128, 64),
        (60, 120),
        (120, 120),
        (128, 2),
    ]
    assert fit_picture(Image.new("RGBA", (256, 256)), (128, 128)).mode == "RGB"


@pytest.fixture
def texts(monkeypatch):
    """The boxes of all texts that are drawn from now on."""
    boxes: list[tuple[str, tuple[float, ...]]] = []
    draw = ImageDraw.ImageDraw.text

    def note(self, xy, text, fill=None, font=None, anchor=None):
        boxes.append((text, self.textbbox(xy, text, font, anchor)))
        draw(self, xy, text, fill, font, anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return boxes


LONG = ["Qwen-Image-Lightning-4steps-V2.0.safetensors", "W" * 300, "a caption, of words\nand lines " * 20]
LONG_SIDES = {
    "lora.lora_name": LONG,
    "a_node_of_a_very_long_name.with_an_input_of_a_longer_one": ["0.5", LONG[1]],
    "positive.text": LONG,
    "sampler.sampler_name": ["euler", "dpmpp_2m_sde_gpu_with_more"],
}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [SMALLEST, 128, 256])
def test_long_labels_meet_neither_one_another_nor_a_cell(texts, count, side):
    sides = dict(list(LONG_SIDES.items())[:count])
    jobs = make_jobs(
        [[f"{path}={value}" for path, value in zip(sides, values, strict=True)] for values in product(sides)]
    )
    (page,) = lay_out(find_axes([job.overrides for job in jobs]), jobs)
    canvas = Canvas(" ".join(LONG), page, (side, side))
    labels = [box for text, box in texts if text != "pending"]
    cells = [canvas.find_box(job.number) for job in jobs]
    assert len(labels) > len(cells) / 4
    for left, top, right, bottom in labels:
        assert left >= 0 and top >= 0 and right <= canvas.image.width and bottom <= canvas.image.height
    for one, other in itertools.chain(itertools.combinations(labels, 2), itertools.product(labels, cells)):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1], (one, other)


def product(sides: dict[str, list[str]]) -> list[tuple[str, ...]]:
    return list(itertools.product(*sides.values()))


def test_text_is_broken_at_words_and_shortened():
    class Mono:
        def getlength(self, text):
            return len(text)

    assert fit_text("one two three", Mono(), 7, 3) == ["one two", "three"]
    assert fit_text("Qwen-Image-Lightning", Mono(), 12, 2) == ["Qwen-Image-", "Lightning"]
    assert fit_text("abcdefghij klm", Mono(), 4, 2) == ["abcd", "efg…"]
    assert fit_text("abc", Mono(), 0.5, 2) == ["a", "…"]
    assert fit_text("", Mono(), 4, 2) == []


NASTY = '<script>alert("1")</script> & \'quoted\' "twice"'


def test_the_page_holds_every_setting_escaped(tmp_path, paint):
    jobs = make_jobs([[f"positive.text={NASTY}", f"seed={seed}"] for seed in (1, NASTY)])
    sheet = make_sheet(jobs, NASTY)
    for job in jobs:
        sheet.place(job.number, paint(RED), "finished", {**read_overrides(job.overrides), NASTY: "1.23"})
    sheet.write(tmp_path)
    text = (tmp_path / "contact_sheet.html").read_text()
    assert "<script>alert" not in text
    page = PageReader(text)
    assert page.tags.count("script") == 1
    for job, place in zip(jobs, page.places, strict=True):
        for value in (*read_overrides(job.overrides).values(), "positive.text", "1.23"):
            assert value in html.unescape(page.places[place])
        assert page.buttons[place]["title"] == job.name


def test_the_page_has_a_header_for_every_value(tmp_path):
    settings = itertools.product(("a", "b"), (2, 4), ("euler", "ddim"), (1, 2, 3))
    paths = ("lora", "sampler.steps", "sampler.sampler_name", "seed")
    jobs = make_jobs([[f"{path}={value}" for path, value in zip(paths, one, strict=True)] for one in settings])
    make_sheet(jobs).write(tmp_path)
    page = read_page(tmp_path)
    assert page.headers == ["euler", "ddim", *("1", "2", "3") * 2, "a", "2", "4", "b", "2", "4"]
    assert len(page.places) == len(jobs)


def test_the_page_needs_no_other_file(tmp_path, paint):
    picture = paint(RED)
    sheet = make_sheet(make_grid())
    for number in range(6):
        sheet.place(number, picture, "finished", {})
    sheet.write(tmp_path)
    text = (tmp_path / "contact_sheet.html").read_text()
    page = PageReader(text)
    assert set(page.sources) == {"data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()}
    assert "link" not in page.tags
    assert not re.search(r"https?:|url\(|@import|\bimport\b|fetch\(|XMLHttp", text)


def test_a_large_file_is_embedded_smaller(tmp_path):
    path = tmp_path / "large.png"
    Image.effect_noise((1024, 768), 90).convert("RGB").save(path)
    sheet = make_sheet(make_grid())
    sheet.place(0, path, "finished", {})
    sheet.write(tmp_path)
    (source,) = read_page(tmp_path).sources
    assert source.startswith("data:image/jpeg;base64,")
    assert len(source) < path.stat().st_size / 2
    with Image.open(tmp_path / "contact_sheet.png") as image:
        assert image.width > 3 * 256


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        make_sheet(make_grid()).write(tmp_path / "file")


PRESSES = """<script>
const said = [];
const say = () => said.push(`${dialog.open ? view.querySelector("h2").textContent : "closed"}`);
const press = key => {
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  say();
};
document.querySelector("#job-0").click(); say();
["ArrowRight", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowUp"].forEach(press);
said.push(view.querySelector("td").textContent);
said.push(String(view.querySelector("img").naturalWidth));
size.value = 256; size.dispatchEvent(new Event("input"));
document.querySelector("#close").click(); say();
said.push(document.querySelector("#job-0 img").getBoundingClientRect().width);
document.querySelector("#job-0").focus(); press("ArrowRight"); said.push(document.activeElement.id);
document.title = said.join("|");
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_opens_cells_and_moves_between_them(tmp_path, paint):
    """Job 4, in the middle of the lower row, is pending: the arrow keys pass over it."""
    jobs = make_grid()
    sheet = make_sheet(jobs)
    for number in (0, 1, 2, 3, 5):
        sheet.place(number, paint(RED), "finished", {"seed": f"<{number}>"})
    sheet.write(tmp_path)
    path = tmp_path / "contact_sheet.html"
    path.write_text(path.read_text().replace("</body>", PRESSES))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=PATIENCE
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr
    assert html.unescape(title[1]).split("|") == [
        "steps=2 seed=1",
        "steps=2 seed=2",
        "steps=2 seed=2",  # nothing is done below
        "steps=2 seed=3",
        "steps=2 seed=2",
        "steps=2 seed=1",
        "steps=2 seed=1",  # the edge
        "<0>",
        "80",
        "closed",
        "256",
        "closed",
        "job-1",
    ]
