"""What the demo model in models/ can do: figures for its card, and the picture that shows them.

    python benchmarks/demo_model.py                          all figures; about ten minutes on two cores
    python benchmarks/demo_model.py --samples 20 --seeds 5   a quick look
    python benchmarks/demo_model.py --sheet docs/images/demo-settings.png    also draws the picture of the card

All runs are the default graph of conf/, through the same session as `python run.py` but without a record:

    captions    a shape, a colour and a background are asked for, and demo_model/classifier.py reads shape and colour
                off the picture. Open: the same with the background left to the seed. Dropped: with an empty caption
    steps       distance of the picture to the one of 50 steps of the same seed, in the median over the seeds
    settings    distance of the picture to that of the default, for one setting changed at a time
    time        of a whole warm run with a new seed, all nodes; and of the UNETLoader in a fresh process

A distance is the root of the mean squared difference of the pictures in RGB, 0 to 255.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from latentgrid_nodes.captions import COLOURS, SHAPES, Caption  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from demo_model.classifier import read_picture  # noqa: E402
from pipeline.base.events import Event, NodeFinished  # noqa: E402
from pipeline.config.read import compose_config, read_config  # noqa: E402
from pipeline.engine.comfyui.preview import draw_latent  # noqa: E402
from pipeline.runs.process import open_session  # noqa: E402

REFERENCE_STEPS = 50
STEPS = (2, 4, 8, 16)
PIXEL = 8  # of the preview, for one of the latent
CELL = 112  # pixels of a picture in a sheet
WARM_RUNS = 20

SETTINGS = (
    ("seed", (1, 2, 3, 4, 5, 6)),
    ("sampler.steps", (1, 2, 4, 8, 16, 50)),
    ("sampler.cfg", (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)),
    ("auraflow.shift", (0.3, 1.0, 3.0, 6.0, 12.0, 30.0)),
    ("cfg_norm.strength", (0.6, 0.8, 0.9, 1.0, 1.1, 1.3)),
    ("lora.strength_model", (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0)),
)
"""One setting a row of the sheet of the card; the values of the default config are among them."""


class Model:
    """The demo model in this process. `load_seconds` is the time of the first UNETLoader, once `sample` was called."""

    def __init__(self) -> None:
        self._session = open_session(read_config(compose_config()))
        self.load_seconds = float("nan")
        self.run_seconds = float("nan")

    def sample(self, **settings: Any) -> np.ndarray:
        """Run the default graph with `settings` (`__` for a dot), and return the preview, uint8 [128, 128, 3]."""
        overrides = [f"{name.replace('__', '.')}={_quote(value)}" for name, value in settings.items()]
        read = read_config(compose_config(overrides))
        checked = self._session.check(read.graph, read.run.outputs, read.problems)
        began = time.perf_counter()
        execution = self._session.run(checked, self._listen)
        self.run_seconds = time.perf_counter() - began
        outputs = execution.outputs["sampler"]
        picture = draw_latent(outputs.outputs[0][0]["samples"], outputs.latent_format)
        assert picture is not None
        return picture

    def _listen(self, event: Event) -> None:
        if isinstance(event, NodeFinished) and event.class_type == "UNETLoader":
            self.load_seconds = event.seconds


def _quote(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def measure_captions(model: Model, samples: int) -> None:
    """Print how often the classifier finds the shape and the colour that were asked for."""
    asked = list(itertools.islice(itertools.cycle(itertools.product(SHAPES, COLOURS)), samples))
    right = {"asked for": 0, "open": 0, "dropped": 0}
    for seed, (shape, colour) in enumerate(asked):
        backgrounds = [one for one in COLOURS if one != colour]
        whole = Caption(None, colour, shape, backgrounds[seed % len(backgrounds)])
        for name, caption in zip(right, (whole, Caption(None, colour, shape), ""), strict=True):
            read = read_picture(_shrink(model.sample(seed=seed, positive__text=str(caption))))
            right[name] += read is not None and (read.shape, read.colour) == (shape, colour)
    print(f"\ncaptions, {samples} samples; chance is {1 / (len(SHAPES) * len(COLOURS)):.1%}")
    for name, count in right.items():
        print(f"  {name:<12}{count / samples:.1%}")


def measure_steps(model: Model, seeds: int) -> None:
    """Print how far a picture of few steps is from that of many."""
    distances: dict[int, list[float]] = {steps: [] for steps in STEPS}
    for seed in range(seeds):
        best = model.sample(seed=seed, sampler__steps=REFERENCE_STEPS)
        for steps in STEPS:
            distances[steps].append(_measure_distance(model.sample(seed=seed, sampler__steps=steps), best))
    print(f"\ndistance to {REFERENCE_STEPS} steps, median over {seeds} seeds")
    for steps, found in distances.items():
        print(f"  {steps:>2} steps    {statistics.median(found):.1f}")


def measure_settings(model: Model, seeds: int) -> None:
    """Print how far the picture moves if one setting is changed."""
    defaults = [model.sample(seed=seed) for seed in range(seeds)]
    print(f"\ndistance to the default of the same seed, median over {seeds} seeds")
    for name, values in SETTINGS[2:]:
        found = {value: _median_distance(model, name, value, defaults) for value in values}
        print(f"  {name:<22}" + ", ".join(f"{value}: {distance:.1f}" for value, distance in found.items()))


def _median_distance(model: Model, name: str, value: Any, defaults: Sequence[np.ndarray]) -> float:
    setting = {name.replace(".", "__"): value}
    return statistics.median(
        _measure_distance(model.sample(seed=seed, **setting), default) for seed, default in enumerate(defaults)
    )


def measure_time(model: Model) -> None:
    """Print the seconds of warm default runs."""
    found = []
    for seed in range(1000, 1000 + WARM_RUNS):
        model.sample(seed=seed)
        found.append(model.run_seconds)
    print(f"\nloading the checkpoint   {model.load_seconds:.2f} s (UNETLoader in a fresh process)")
    print(
        f"a warm default run       {statistics.median(found):.2f} s (median of {WARM_RUNS}, longest {max(found):.2f} s)"
    )


def draw_sheet(model: Model, path: Path) -> None:
    """Write a picture with a row for each setting."""
    rows = []
    for name, values in SETTINGS:
        pictures = [model.sample(**{name.replace(".", "__"): value}) for value in values]
        label = name.rpartition(".")[2]
        rows.append([(f"{label}={value}", picture) for value, picture in zip(values, pictures, strict=True)])
    _write_sheet(rows, path)


def _write_sheet(rows: Sequence[Sequence[tuple[str, np.ndarray]]], path: Path) -> None:
    """Write pictures in rows, each with its label above it."""
    margin, line = 6, 15
    width = max(map(len, rows)) * (CELL + margin) + margin
    sheet = Image.new("RGB", (width, len(rows) * (CELL + line + margin) + margin), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (label, picture) in enumerate(row):
            left, top = margin + x * (CELL + margin), margin + y * (CELL + line + margin)
            draw.text((left, top), label, "black", ImageFont.load_default(11))
            cell = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(cell, (left, top + line))
    sheet.save(path)
    print(f"wrote {path}")


def _shrink(picture: np.ndarray) -> torch.Tensor:
    """Return a preview in the size of its latent, float32 [3, height, width] in [0, 1]."""
    return torch.from_numpy(picture[::PIXEL, ::PIXEL].copy()).movedim(-1, 0).float() / 255


def _measure_distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean((one.astype(np.float64) - other) ** 2)))


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200, help="captions to sample")
    parser.add_argument("--seeds", type=int, default=50, help="seeds for the distances")
    parser.add_argument("--sheet", type=Path, help="where to write the picture of all settings")
    given = parser.parse_args()
    model = Model()
    model.sample()
    measure_time(model)
    measure_captions(model, given.samples)
    measure_steps(model, given.seeds)
    measure_settings(model, min(given.seeds, 10))
    if given.sheet:
        draw_sheet(model, given.sheet)
    print(
        f"\n{date.today()}, {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"torch {version('torch')}, numpy {np.__version__}"
    )


if __name__ == "__main__":
    main()
