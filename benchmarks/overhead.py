"""What latentgrid costs beyond sampling, beside a bare loop over the same nodes and beside ComfyUI's own server.

    python benchmarks/overhead.py                        about ten minutes on two cores
    python benchmarks/overhead.py --cold 1 --warm 5      a quick look

The graph is that of experiment=tiny, on the tiny Qwen-Image fixture that is made on first use: UNETLoader,
LoraLoaderModelOnly, ModelSamplingAuraFlow, CFGNorm, KSampler, with two steps on a 16x16 latent. Measured are

    bare loop           benchmarks/_bare.py: calls the five node functions by hand and keeps nothing
    tracking=none       `python run.py experiment=tiny tracking=none`, and pipeline.run in a loop
    tracking=mlflow     the same with a fresh SQLite store; mlflow works in a child process
    server              main.py of the same ComfyUI, asked by its HTTP API; SaveLatent keeps the latent. Of custom
                        nodes it has this project's loaders, and its front end is an empty folder
    server, no API      the same with --disable-api-nodes

How: every process runs under benchmarks/_timed.py, which puts one and the same clock on KSampler's function.
- Cold, latent: from the start of a fresh process until KSampler's first call has returned; a server gets the prompt as
  soon as it listens (tried every 10 ms). Cold, end: until the process has ended, or the server has given the result.
  The order changes from round to round, and medians are shown.
- Warm: one process each; they take turns, all others waiting, with a new seed each round, so that models and inputs
  are there and KSampler runs. `beyond` is the time of the run less that of the KSampler call within it. The run's time
  is taken by its loop: for latentgrid all of it, from composing the config to the finished record; for the server from
  sending POST /prompt until /history has given the result, asked for when the websocket says that it is there.
- Memory: the peak resident size of the warm process, and with those of its child processes added to it.
All must give the same latents, and the output says whether they did. On a GPU (not tried yet) the bare loop does
without the dynamic VRAM that the others set up.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from _processes import (
    ROOT,
    Loop,
    Process,
    Server,
    Setting,
    describe_conditions,
    find_gpu,
    read_peak,
    say,
)

from pipeline.engine.comfyui.locate import find_comfyui
from pipeline.models.tiny import make_tiny_model

WARM_UPS = 3
BARE, NONE, MLFLOW = "bare loop", "tracking=none", "tracking=mlflow"


# What is measured


@dataclass
class Subject:
    """Something that samples, and its figures in seconds and bytes, an entry for each round.

    once: starts, in the given folder, a process that samples one seed and ends (or a server that waits for requests).
    loop: starts, in the given folder, a process that runs seeds one after the other.
    """

    name: str
    once: Callable[[Path], Process]
    loop: Callable[[Path], Process]
    cold_latent: list[float] = field(default_factory=list)
    cold_end: list[float] = field(default_factory=list)
    sampling: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)
    composing: list[float] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    memory: tuple[int, int, int] = (0, 0, 0)

    def measure_cold(self, folder: Path) -> None:
        """Measure one run in a fresh process."""
        with self.once(folder) as process:
            if isinstance(process, Server):
                process.run(42)
            else:
                process.finish("42\n")
            self.cold_end.append(time.time() - process.started)
            self.cold_latent.append(process.read_clock()[0]["ended"] - process.started)

    def measure_warm(self, process: Process, seed: int) -> None:
        """Measure one more run in a process that has run before."""
        seconds, *composing = process.run(seed)
        call = process.read_clock()[-1]
        self.sampling.append(call["seconds"])
        self.beyond.append(seconds - call["seconds"])
        self.composing.extend(composing)
        self.digests.append(call["digest"])

    def measure_memory(self, process: Process) -> None:
        """Measure the peaks in bytes so far: of the process, with its children, and of the GPU."""
        measured = psutil.Process(process.popen.pid)
        own = read_peak(measured)
        children = sum(read_peak(child) for child in measured.children(recursive=True))
        self.memory = own, own + children, max(call["gpu_peak"] for call in process.read_clock())


def list_subjects(setting: Setting) -> list[Subject]:
    """Return all subjects, in the order of the table."""
    bare: list[str | Path] = [ROOT / "benchmarks/_bare.py", setting.comfyui.path, setting.fixture, str(setting.steps)]
    return [
        Subject(BARE, lambda folder: Process(folder, bare), lambda folder: Loop(folder, bare)),
        make_own_subject(NONE, setting, lambda folder: []),
        make_own_subject(MLFLOW, setting, lambda folder: [f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]),
        make_server_subject("server", setting),
        make_server_subject("server, no API", setting, "--disable-api-nodes"),
    ]


def make_own_subject(tracking: str, setting: Setting, more: Callable[[Path], list[str]]) -> Subject:
    """Return latentgrid with these overrides, from the command line and in a loop."""

    def overrides(folder: Path) -> list[str]:
        return ["experiment=tiny", tracking, f"sampler.steps={setting.steps}", *more(folder)]

    return Subject(
        tracking,
        lambda folder: Process(folder, [ROOT / "run.py", *overrides(folder), f"hydra.run.dir={folder / 'run'}"]),
        lambda folder: Loop(folder, ["pipeline.run", *overrides(folder)]),
    )


def make_server_subject(name: str, setting: Setting, *options: str) -> Subject:
    """Return ComfyUI's server with these further options."""
    return Subject(
        name, lambda folder: Server(folder, setting, options), lambda folder: Server(folder, setting, options)
    )


def measure(subjects: list[Subject], cold: int, warm: int, folder: Path) -> None:
    """Fill in the figures of all subjects; they take turns."""
    for number in range(cold):
        say(f"cold start, round {number + 1} of {cold}")
        shift = number % len(subjects)
        for index, subject in enumerate(subjects[shift:] + subjects[:shift]):
            subject.measure_cold(folder / f"cold_{number}_{index}")
    if warm:
        with ExitStack() as stack:
            loops = [stack.enter_context(subject.loop(folder / f"warm_{i}")) for i, subject in enumerate(subjects)]
            measure_loops(subjects, loops, warm)


def measure_loops(subjects: list[Subject], loops: list[Process], rounds: int) -> None:
    """Run the warm processes in turns."""
    for loop in loops:  # one by one, because they also start here
        loop.run(1)
    for seed in range(2, WARM_UPS + 1):
        for loop in loops:
            loop.run(seed)
    for number in range(rounds):
        say(f"warm, round {number + 1} of {rounds}")
        shift = number % len(subjects)
        pairs = list(zip(subjects, loops, strict=True))
        for subject, loop in pairs[shift:] + pairs[:shift]:
            subject.measure_warm(loop, 1000 + number)
    for subject, loop in zip(subjects, loops, strict=True):
        subject.measure_memory(loop)


# What is printed


def format_table(subjects: list[Subject]) -> str:
    """Return a line for each subject: medians, and the range or quartiles beside them."""
    head = [
        "",
        "cold: latent s",
        "cold: end s",
        "warm: KSampler ms",
        "beyond ms",
        "(quartiles)",
        "peak GB",
        "+children",
    ]
    rows = [head, *(list_cells(subject) for subject in subjects)]
    gpu = [["GPU GB"], *([f"{subject.memory[2] / 1e9:.2f}"] for subject in subjects)]
    if any(subject.memory[2] for subject in subjects):
        rows = [row + cell for row, cell in zip(rows, gpu, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def list_cells(subject: Subject) -> list[str]:
    """Return the cells of a line of the table."""
    beyond = sorted(subject.beyond)
    quartiles = statistics.quantiles(beyond, n=4) if len(beyond) > 1 else beyond * 3
    return [
        subject.name,
        format_range(subject.cold_latent),
        format_range(subject.cold_end),
        f"{1000 * median(subject.sampling):.0f}",
        f"{1000 * median(beyond):.1f}",
        f"({1000 * quartiles[0]:.1f} to {1000 * quartiles[2]:.1f})" if quartiles else "",
        f"{subject.memory[0] / 1e9:.2f}",
        f"{subject.memory[1] / 1e9:.2f}",
    ]


def format_range(values: list[float]) -> str:
    """Return the median, smallest and largest of a few values."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-"


def median(values: list[float]) -> float:
    """Return the median, or NaN if there are no values."""
    return statistics.median(values) if values else float("nan")


def judge(subjects: list[Subject]) -> list[str]:
    """Return a line for each goal, with its figure and whether it is met."""
    by_name = {subject.name: subject for subject in subjects}
    bare, none, mlflow = by_name[BARE], by_name[NONE], by_name[MLFLOW]
    lines = []
    if bare.beyond:
        allowed = max(0.03 * (median(bare.sampling) + median(bare.beyond)), 0.020)
        added = median(none.beyond) - median(bare.beyond)
        lines.append(write_verdict("warm, above the bare loop, from overrides", added, allowed))
        added -= median(none.composing)
        lines.append(write_verdict("warm, above the bare loop, from a composed config", added, allowed))
        tracked = median(mlflow.beyond) - median(none.beyond)
        lines.append(write_verdict("warm, added by tracking", tracked, 0.060))
    for subject in (none, mlflow) if bare.cold_latent else ():
        later = median(subject.cold_latent) - median(bare.cold_latent)
        lines.append(
            write_verdict(f"cold, later than the bare loop, {subject.name}", later, 0.1 * median(bare.cold_latent))
        )
    return lines


def write_verdict(goal: str, seconds: float, allowed: float) -> str:
    """Return the line of a goal."""
    verdict = "met" if seconds <= allowed else "MISSED"
    return f"  {verdict:<7}{goal}: {1000 * seconds:.1f} ms, the goal is at most {1000 * allowed:.1f} ms"


def compare_latents(subjects: list[Subject]) -> str:
    """Return a sentence on whether all gave the same latent for the same seed."""
    same = all(subject.digests == subjects[0].digests for subject in subjects)
    return "All gave the same latents, bit for bit." if same else "The latents DIFFER: not all did the same work."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what latentgrid costs beyond sampling.")
    parser.add_argument("--cold", type=int, default=3, metavar="N", help="cold starts of each (default 3)")
    parser.add_argument("--warm", type=int, default=20, metavar="M", help="warm runs of each (default 20)")
    parser.add_argument("--steps", type=int, default=2, help="sampling steps (default 2)")
    parser.add_argument("--folder", type=Path, help="keep logs and outputs in this folder, which must not exist")
    given = parser.parse_args()
    setting = Setting(find_comfyui(), make_tiny_model(), find_gpu(), given.steps)
    conditions = describe_conditions(setting, f"{given.cold} cold starts, {given.warm} warm runs after {WARM_UPS}")
    print(conditions, end="\n\n", flush=True)
    subjects = list_subjects(setting)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="latentgrid_overhead_"))
    try:
        measure(subjects, given.cold, given.warm, folder.resolve())
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(format_table(subjects), "", *judge(subjects), compare_latents(subjects), sep="\n")


if __name__ == "__main__":
    main()
