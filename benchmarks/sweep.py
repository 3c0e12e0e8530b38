"""A grid of 24 cells on one command line, beside what else could compute it; and what many cells cost.

    python benchmarks/sweep.py                  about ten minutes on two cores
    python benchmarks/sweep.py --parts grid     just the comparison; `cells` and `memory` are the other parts

grid: steps 2,4 x LoRA strength 0.5,1.0 x cfg 1.0,2.5 x seed 1,2,3 of experiment=tiny, in the worst order of the command
line (the LoRA's strength changes from each cell to the next). Measured from the start of the process to its end:

    bare loop           benchmarks/_bare_sweep.py: the ideal, in the best order, by hand; keeps nothing
    tracking=none       `python run.py -m experiment=tiny tracking=none ...`; keeps latents, pictures, configs, a sheet
    tracking=mlflow     the same with a fresh SQLite store; complete when the process ends
    seed batches        tracking=none with run.batch_seeds=3
    server              ComfyUI's own, without its API nodes: all 24 prompts queued at once in the same order,
                        SaveLatent keeps the latents; until the last result is there
    24 processes        `python run.py experiment=tiny tracking=none ...` for each cell, one after the other

`sampling` is the time within KSampler, `first` when its first call has returned; `beyond/cell` is what lies between the
first and the last return less the sampling in between. Subjects take turns, and the median of the rounds is shown.
Memory is the peak resident size of the process, and of all its processes together (looked at every 50 ms).

cells: jobs that have nearly nothing to do (the kept node makes an empty latent), 100, 300 and 1,000 of them.
memory: 200 seeds of one step; the resident size after a quarter, a half and all of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from _processes import ROOT, Process, Server, Setting, describe_conditions, find_gpu, say, write_prompt

from pipeline.engine.comfyui.locate import find_comfyui
from pipeline.models.tiny import make_tiny_model

BARE, NONE, MLFLOW, BATCHED = "bare loop", "tracking=none", "tracking=mlflow", "seed batches"
SERVER, PROCESSES = "server", "24 processes"
LOOK = 0.05  # seconds between two looks at the memory of all processes

SEEDS, STEPS, CFGS, STRENGTHS = (1, 2, 3), (2, 4), (1.0, 2.5), (0.5, 1.0)
CELLS = list(itertools.product(SEEDS, STEPS, CFGS, STRENGTHS))  # the last changes fastest, as on the command line
GRID = ["seed=1,2,3", "sampler.steps=2,4", "sampler.cfg=1.0,2.5", "lora.strength_model=0.5,1.0"]

Cell = tuple[int, int, float, float]


@dataclass
class Figures:
    """The figures of one way to compute the grid in seconds and bytes, an entry for each round."""

    total: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    sampling: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)
    peak_of_all: list[int] = field(default_factory=list)
    loads: int = 0
    patches: float = 0.0
    digests: frozenset[str] = frozenset()

    def add(self, process: Process, ended: float, peak_of_all: int) -> None:
        """Add a round that a single process computed."""
        calls, end = process.read_clock(), process.read_end()
        within = sum(call["seconds"] for call in calls)
        between = calls[-1]["ended"] - calls[0]["ended"] - (within - calls[0]["seconds"])
        self.total.append(ended - process.started)
        self.first.append(calls[0]["ended"] - process.started)
        self.sampling.append(within)
        self.beyond.append(between / (len(calls) - 1))
        self.peak.append(1024 * end["peak"])
        self.peak_of_all.append(peak_of_all)
        self.loads, self.patches = end["loads"], end["patches"]
        self.digests = frozenset(call["digest"] for call in calls)


@contextmanager
def watch_memory(process: Process) -> Iterator[list[int]]:
    """Watch the memory of a process and its children in the `with` block; the yielded list gets the largest sum."""
    peak, stop = [0], threading.Event()

    def look() -> None:
        root = psutil.Process(process.popen.pid)
        while not stop.wait(LOOK):
            try:
                family = [root, *root.children(recursive=True)]
                peak[0] = max(peak[0], sum(one.memory_info().rss for one in family))
            except psutil.NoSuchProcess:
                continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def run_to_end(figures: Figures, process: Process, text: str = "") -> None:
    """Measure a process that ends by itself."""
    with process, watch_memory(process) as peak:
        process.finish(text)
        ended = time.time()
    figures.add(process, ended, peak[0])


def measure_bare(figures: Figures, setting: Setting, folder: Path) -> None:
    """Measure a round of the bare loop."""
    command: list[str | Path] = [ROOT / "benchmarks/_bare_sweep.py", setting.comfyui.path, setting.fixture]
    run_to_end(figures, Process(folder, command), json.dumps(CELLS))


def measure_own(figures: Figures, setting: Setting, folder: Path, *overrides: str) -> None:
    """Measure a round of latentgrid with these overrides."""
    command = [ROOT / "run.py", "-m", "experiment=tiny", *overrides, *GRID, "hydra.sweep.dir=sweep"]
    run_to_end(figures, Process(folder, command))


def measure_server(figures: Figures, setting: Setting, folder: Path) -> None:
    """Measure a round of ComfyUI's server, until the last result is there."""
    prompts = [write_prompt(setting, *cell) for cell in CELLS]
    with Server(folder, setting, ["--disable-api-nodes"]) as server, watch_memory(server) as peak:
        server.wait_until_listening()
        server.ask(*prompts)
        ended = time.time()
    figures.add(server, ended, peak[0])


def measure_processes(figures: Figures, setting: Setting, folder: Path) -> None:
    """Measure a process for each cell, one after the other."""
    began = time.time()
    for number, (seed, steps, cfg, strength) in enumerate(CELLS):
        say(f"{PROCESSES}: {number + 1}")
        settings = [f"seed={seed}", f"sampler.steps={steps}", f"sampler.cfg={cfg}", f"lora.strength_model={strength}"]
        command = [ROOT / "run.py", "experiment=tiny", "tracking=none", *settings, "hydra.run.dir=run"]
        one = Figures()
        with Process(folder / str(number), command) as process:
            process.finish("")
            calls, end = process.read_clock(), process.read_end()
        one.sampling.append(calls[0]["seconds"])
        figures.loads += end["loads"]
        figures.patches += end["patches"]
        figures.digests |= {calls[0]["digest"]}
        if not figures.first:
            figures.first.append(calls[0]["ended"] - process.started)
        figures.sampling[:] = [sum(figures.sampling) + calls[0]["seconds"]]
        figures.peak[:] = [max([*figures.peak, 1024 * end["peak"]])]
    figures.total.append(time.time() - began)


def measure_grid(setting: Setting, rounds: int, processes: bool, folder: Path) -> dict[str, Figures]:
    """Measure all ways to compute the grid, in turns."""
    ways: dict[str, Callable[[Figures, Setting, Path], None]] = {
        BARE: measure_bare,
        NONE: lambda *given: measure_own(*given, "tracking=none"),
        MLFLOW: lambda *given: measure_own(*given, "tracking.uri=sqlite:///mlflow.db"),
        BATCHED: lambda *given: measure_own(*given, "tracking=none", "run.batch_seeds=3"),
        SERVER: measure_server,
    }
    figures = {name: Figures() for name in ways}
    names = list(ways)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            say(f"grid, round {number + 1} of {rounds}: {name}")
            ways[name](figures[name], setting, folder / f"{number}_{name.replace(' ', '_')}")
    if processes:
        figures[PROCESSES] = Figures()
        measure_processes(figures[PROCESSES], setting, folder / "processes")
    return figures


def format_grid(figures: dict[str, Figures]) -> str:
    """Return a line for each way to compute the grid."""
    head = [
        "",
        "total s",
        "of bare",
        "first s",
        "sampling s",
        "beyond/cell ms",
        "loads",
        "patches",
        "peak GB",
        "of all",
    ]
    rows = [head]
    bare = median(figures[BARE].total)
    for name, one in figures.items():
        rows.append(
            [
                name,
                f"{median(one.total):.2f}",
                f"{median(one.total) / bare:.2f}",
                f"{median(one.first):.2f}",
                f"{median(one.sampling):.2f}",
                f"{1000 * median(one.beyond):.0f}",
                f"{one.loads}",
                f"{one.patches:.0f}",
                f"{median(one.peak) / 1e9:.2f}",
                f"{median(one.peak_of_all) / 1e9:.2f}",
            ]
        )
    return format_rows(rows)


def format_rows(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines, with the cells aligned on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def median(values: Sequence[float]) -> float:
    """Return the median, or NaN if there are no values."""
    return statistics.median(values) if values else float("nan")


def judge_grid(figures: dict[str, Figures]) -> list[str]:
    """Return a line for each goal, with its figure and whether it is met."""
    bare, none, mlflow, server = (figures[name] for name in (BARE, NONE, MLFLOW, SERVER))
    goals = [
        ("total without tracking, by the bare loop", median(none.total) / median(bare.total), 1.05),
        ("total with tracking, by the bare loop", median(mlflow.total) / median(bare.total), 1.10),
        ("total with tracking, by the server", median(mlflow.total) / median(server.total), 1.0),
        ("beyond sampling without tracking, by the server", median(none.beyond) / median(server.beyond), 1.0),
        ("checkpoints loaded", mlflow.loads, 1),
        ("times the LoRA was patched", mlflow.patches, len(STRENGTHS)),
        ("peak memory without tracking, by the server", median(none.peak_of_all) / median(server.peak_of_all), 1.0),
    ]
    lines = [f"  {'met' if got <= goal else 'MISSED':<7}{name}: {got:.2f}, at most {goal}" for name, got, goal in goals]
    equal = all(one.digests == bare.digests for name, one in figures.items() if name != BATCHED)
    return [*lines, "All gave the same 24 latents, bit for bit." if equal else "The latents DIFFER."]


def measure_cells(folder: Path) -> str:
    """Measure what a job costs that has next to nothing to do, and return a table."""
    rows = [["jobs", "none: total s", "ms/job", "mlflow: total s", "ms/job"]]
    node = ["+empty._node_=EmptyLatentImage", "+empty.width=64", "+empty.height=64", "+empty.batch_size=1"]
    empty = ["experiment=tiny", *node, "run.outputs=[empty]", "run.resume=false"]
    for count in (100, 300, 1000):
        row = [str(count)]
        for tracking in ("tracking=none", "tracking.uri=sqlite:///mlflow.db"):
            say(f"{count} jobs, {tracking}")
            command = [ROOT / "run.py", "-m", *empty, tracking, f"seed=range(0,{count})", "hydra.sweep.dir=sweep"]
            with Process(folder / f"{count}_{len(row)}", command) as process:
                process.finish("")
                seconds = time.time() - process.started
            row += [f"{seconds:.1f}", f"{1000 * seconds / count:.0f}"]
        rows.append(row)
    return format_rows(rows)


def measure_memory(folder: Path, count: int = 200) -> str:
    """Measure whether the process grows with the number of cells, and return a line on it."""
    say(f"{count} cells")
    command = [ROOT / "run.py", "-m", "experiment=tiny", "tracking.uri=sqlite:///mlflow.db", "sampler.steps=1"]
    with Process(folder, [*command, f"seed=range(0,{count})", "hydra.sweep.dir=sweep"]) as process:
        process.finish("")
        calls: list[dict[str, Any]] = process.read_clock()
    sizes = ", ".join(f"{calls[place - 1]['memory'] / 1e9:.3f}" for place in (1, count // 4, count // 2, count))
    return f"resident GB after 1, {count // 4}, {count // 2} and {count} cells: {sizes}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure a grid of 24 cells, and what many cells cost.")
    parser.add_argument("--parts", nargs="+", choices=["grid", "cells", "memory"], default=["grid", "cells", "memory"])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of the grid (default 3)")
    parser.add_argument("--no-processes", action="store_true", help="leave out the 24 processes, the slowest way")
    parser.add_argument("--folder", type=Path, help="keep logs and outputs in this folder, which must not exist")
    given = parser.parse_args()
    setting = Setting(find_comfyui(), make_tiny_model(), find_gpu(), max(STEPS))
    print(describe_conditions(setting, f"{given.rounds} rounds"), flush=True)
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="latentgrid_sweep_"))).resolve()
    try:
        if "grid" in given.parts:
            figures = measure_grid(setting, given.rounds, not given.no_processes, folder / "grid")
            print("", format_grid(figures), *judge_grid(figures), sep="\n", flush=True)
        if "cells" in given.parts:
            print("", measure_cells(folder / "cells"), sep="\n", flush=True)
        if "memory" in given.parts:
            print("", measure_memory(folder / "memory"), sep="\n", flush=True)
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
