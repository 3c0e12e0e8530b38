"""A sweep of 24 runs in MLflow's real UI, in a real browser: what a person reads there.

SCREENSHOTS=docs/images python -m pytest tests/record/test_mlflow_pages.py    also takes the pictures of docs/records.md
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from mlflow import MlflowClient
from patience import PATIENCE
from record.mlflow_server import MLflowServer

from benchmarks._browser import Page, open_page, run_browser

STEPS, CFGS, TEXTS, SEEDS = ("1", "2", "3"), ("1.0", "4.0"), ("a yellow star on blue", "a small red heart"), ("1", "2")
GRID = [f"sampler.steps={','.join(STEPS)}", f"sampler.cfg={','.join(CFGS)}", f"positive.text={','.join(TEXTS)}"]
NAMES = {
    f"steps={steps} cfg={cfg} text={text} seed={seed}"
    for steps in STEPS
    for cfg in CFGS
    for text in TEXTS
    for seed in SEEDS
}
LARGE = 2400, 2600  # tables hold only the rows and columns that are visible
SMALL = 1400, 850  # of the pictures of docs/records.md
TEXT = "(document.body?.innerText ?? '').replace(/\\s+/g, ' ')"
LOADED = "[...document.images].filter(one => one.src.includes('get-artifact') && one.naturalWidth)"


@dataclass(frozen=True)
class UI:
    """MLflow's UI at `address`, a browser whose DevTools listen at `port`, and the sweep that it shows."""

    address: str
    port: int
    experiment: str
    sweep: Any
    runs: list[Any]

    def read(self, path: str, look: Callable[[Page], Awaitable[None]]) -> None:
        """Look at a page."""

        async def visit() -> None:
            async with open_page(self.port, f"{self.address}/#{path}") as page:
                await page.resize(*LARGE)
                await look(page)

        asyncio.run(visit())


@pytest.fixture(scope="module")
def ui(tmp_path_factory) -> Iterator[UI]:
    """The UI on a sweep of the demo model."""
    if not shutil.which("chromium"):
        pytest.skip("needs chromium: apt-get install chromium")
    folder = tmp_path_factory.mktemp("ui")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, ROOT / "run.py", "-m", *GRID, f"seed={','.join(SEEDS)}", "hydra.sweep.dir=sweep"]
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    store = f"sqlite:///{folder}/outputs/mlflow.db"
    server = MLflowServer(folder, store)
    server.start()
    with contextlib.closing(server), run_browser("chromium", folder) as port:
        client = MlflowClient(store)
        experiment = client.get_experiment_by_name("latentgrid").experiment_id
        found = client.search_runs([experiment])
        (sweep,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        shown = UI(server.uri, port, experiment, sweep, [run for run in found if run is not sweep])
        shown.read(f"/experiments/{experiment}/runs", close_assistant)
        yield shown


def test_the_table_of_runs_shows_the_sweep_folded_over_its_runs(ui):
    async def look(page: Page) -> None:
        text = await read_until(page, "25 matching runs", ui.sweep.info.run_name)
        assert not [name for name in NAMES if name in text]
        await page.evaluate(
            "document.querySelector('.ag-row [col-id*=\"Run Name\"] :is(button, [role=button])').click()"
        )
        await read_until(page, *NAMES)

    ui.read(f"/experiments/{ui.experiment}/runs", look)


def test_the_table_of_a_sweep_has_the_columns_that_matter(ui):
    async def look(page: Page) -> None:
        heads = ["sampler.steps", "sampler.cfg", "positive.text", "seed", "latent/sampler/mean", "seconds/total"]
        text = await read_until(page, "24 matching runs", *NAMES, *heads)
        assert ui.sweep.info.run_name not in text
        await take_picture(page, "mlflow-runs")

    ui.read(f"/experiments/{ui.experiment}/runs?viewStateShareKey={ui.sweep.info.run_id}", look)


def test_the_charts_of_a_sweep_show_its_pictures_and_parallel_coordinates(ui):
    async def look(page: Page) -> None:
        await read_until(page, "24 matching runs", "Parallel Coordinates", "sampler.steps")
        await page.wait_for(f"{LOADED}.length >= 10")
        await take_picture(page, "mlflow-compare", 1600, 1000)

    view = f"viewStateShareKey={ui.sweep.info.run_id}&compareRunsMode=CHART"
    ui.read(f"/experiments/{ui.experiment}/runs?{view}", look)


def test_24_runs_can_be_compared(ui):
    async def look(page: Page) -> None:
        await read_until(page, "Comparing 24 Runs from 1 Experiment", "Parallel Coordinates Plot", *NAMES, *TEXTS)

    runs = json.dumps([run.info.run_id for run in ui.runs])
    ui.read(f'/compare-runs?runs={runs}&experiments=["{ui.experiment}"]', look)


def test_the_page_of_a_run_says_what_it_was_made_of_and_how_to_repeat_it(ui):
    run = next(run for run in ui.runs if run.info.run_name.startswith("steps=3 cfg=4.0 text=a yellow"))

    async def look(page: Page) -> None:
        await page.wait_for(f"{LOADED}.some(one => one.src.includes('sampler.png'))")
        await read_until(
            page,
            run.info.run_name,
            f"python -m pipeline rerun {run.info.run_id} --verify",
            f"python -m pipeline export {run.info.run_id}",
            "python run.py sampler.steps=3 sampler.cfg=4.0",
            "positive.text a yellow star on blue",
            "unet.unet_name demo_shapes.safetensors",
            "Logged models (2)",
            "demo_shapes_safetensors",
            "Datasets latent (",
            "version.comfyui",
            "latent/sampler/mean",
        )
        await take_picture(page, "mlflow-run")

    ui.read(f"/experiments/{ui.experiment}/runs/{run.info.run_id}", look)


def test_the_page_of_a_run_draws_its_steps(ui):
    run = next(run for run in ui.runs if run.info.run_name.startswith("steps=3"))

    async def look(page: Page) -> None:
        await read_until(page, "seconds_per_step", "latent/sampler", run.info.run_name)
        await page.wait_for("!!document.querySelector('.scatterlayer .trace')")

    ui.read(f"/experiments/{ui.experiment}/runs/{run.info.run_id}/model-metrics", look)


def test_the_page_of_a_sweep_shows_its_sheet_and_leads_to_its_runs(ui):
    async def look(page: Page) -> None:
        await page.wait_for(f"{LOADED}.some(one => one.src.includes('contact_sheet.png'))")
        await read_until(page, f"python -m pipeline rerun {ui.sweep.info.run_id} --verify", "sampler.steps 1,2,3")
        await page.go(await page.evaluate("[...document.links].find(one => one.innerText === 'table').href"))
        await read_until(page, "24 matching runs", *NAMES)

    ui.read(f"/experiments/{ui.experiment}/runs/{ui.sweep.info.run_id}", look)


async def close_assistant(page: Page) -> None:
    """Close the panel that takes a third of the page; the browser remembers it."""
    button = "document.querySelector('[data-component-id=\"mlflow.assistant.chat_panel.close\"]')"
    await page.wait_for(f"{button} && ({button}.click(), true)")


async def read_until(page: Page, *said: str) -> str:
    """The text of a page, white space as single blanks, as soon as it says all that."""
    try:
        return str(await page.wait_for(f"{json.dumps(said)}.every(one => {TEXT}.includes(one)) && {TEXT}"))
    except RuntimeError:
        text = await page.evaluate(TEXT)
        raise AssertionError(f"{[one for one in said if one not in text]} not in {text}") from None


async def take_picture(page: Page, name: str, width: int = SMALL[0], height: int = SMALL[1]) -> None:
    """Write a picture of the page for docs/records.md, if it is wanted."""
    folder = os.environ.get("SCREENSHOTS")
    if not folder:
        return
    from PIL import Image

    await page.resize(width, height)
    await asyncio.sleep(3)  # for what moves or loads anew
    path = Path(folder, f"{name}.png")
    await page.shoot(path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128).save(path, optimize=True)
