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
All must give the same latents, and it is said whether they did. On a GPU (not tried yet) the bare loop does without the
dynamic VRAM that the others set up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import aiohttp
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.engine.comfyui.locate import Installation, find_comfyui  # noqa: E402
from pipeline.tiny_model import LORA, UNET, make_tiny_model  # noqa: E402

WARM_UPS = 3
PATIENCE = 300.0  # seconds after which something that does not answer is given up
CLIENT = "benchmark"  # what the server calls us
BARE, NONE, MLFLOW = "bare loop", "tracking=none", "tracking=mlflow"


@dataclass(frozen=True)
class Setting:
    """What all measurements share; `gpu` is its name, empty without one."""

    comfyui: Installation
    fixture: Path
    gpu: str
    steps: int


# Processes under the clock


class Process:
    """A script in a process of its own, in a new folder `folder`; its output goes to log.txt there."""

    def __init__(self, folder: Path, command: Sequence[str | Path]):
        folder.mkdir(parents=True, exist_ok=True)
        self._clock, self._log = folder / "clock.jsonl", folder / "log.txt"
        timed = [sys.executable, ROOT / "benchmarks/_timed.py", self._clock, *command]
        # Without bytecode every import would be compiled again, which nobody has to wait for.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with self._log.open("w") as log:
            self.started = time.time()
            self.popen = subprocess.Popen(
                [str(word) for word in timed],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env=environment,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        """End it: by the end of its input if it reads that, else by SIGTERM, else by force."""
        stops: tuple[Callable[[], None], ...] = (self._close_input, self.popen.terminate, self.popen.kill)
        for stop in stops:
            stop()
            try:
                self.popen.wait(timeout=5)
                break
            except subprocess.TimeoutExpired:
                continue
        if self.popen.stdout:
            self.popen.stdout.close()

    def _close_input(self) -> None:
        if self.popen.stdin and not self.popen.stdin.closed:
            self.popen.stdin.close()

    def run(self, seed: int) -> list[float]:
        """Run a seed and return its seconds, and how many of them went into the config."""
        raise NotImplementedError

    def finish(self, text: str) -> None:
        """Give it its whole input, and wait until it has ended by itself."""
        self.popen.communicate(text, timeout=PATIENCE)
        if self.popen.returncode:
            raise self.failure()

    def read_clock(self) -> list[dict[str, Any]]:
        """The calls of KSampler so far."""
        return [json.loads(line) for line in self._clock.read_text().splitlines()]

    def failure(self) -> RuntimeError:
        """The error to raise when it does not do what it should."""
        return RuntimeError(f"{self._log.parent.name} failed:\n{self._log.read_text()[-3000:]}")


class Loop(Process):
    """A script that runs a seed for each line of its standard input and prints `@ SECONDS...`."""

    def run(self, seed: int) -> list[float]:
        assert self.popen.stdin and self.popen.stdout
        self.popen.stdin.write(f"{seed}\n")
        self.popen.stdin.flush()
        for line in self.popen.stdout:
            if line.startswith("@ "):
                return [float(word) for word in line.split()[1:]]
        raise self.failure()


class Server(Process):
    """ComfyUI's own server. What it writes goes to `folder`; nothing goes into its tree."""

    def __init__(self, folder: Path, setting: Setting, options: Sequence[str]):
        self._setting, self._port = setting, find_free_port()
        self._loop = asyncio.new_event_loop()
        for name in ("web", "custom_nodes"):
            (folder / name).mkdir(parents=True)
        (folder / "packs.yaml").write_text(json.dumps({"latentgrid": {"custom_nodes": str(ROOT / "nodes")}}))
        super().__init__(folder, [setting.comfyui.path / "main.py", *self._list_options(folder), *options])

    def _list_options(self, folder: Path) -> list[str]:
        return [
            *["--port", str(self._port), "--base-directory", str(folder), "--front-end-root", str(folder / "web")],
            *["--database-url", f"sqlite:///{folder / 'comfyui.db'}", "--extra-model-paths-config"],
            *[str(folder / "packs.yaml"), "--models-directory", str(self._setting.fixture / "models")],
            *["--disable-all-custom-nodes", "--whitelist-custom-nodes", "latentgrid"],
            *([] if self._setting.gpu else ["--cpu"]),
        ]

    def __exit__(self, *error: object) -> None:
        self._loop.close()
        self.popen.terminate()  # it does not read its input
        super().__exit__(*error)

    def run(self, seed: int) -> list[float]:
        self._wait_until_listening()
        return [self._loop.run_until_complete(self._ask(write_prompt(self._setting, seed)))]

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if self.popen.poll() is not None or time.monotonic() > deadline:
                    raise self.failure() from None
                time.sleep(0.01)

    async def _ask(self, prompt: dict[str, Any]) -> float:
        """Seconds from sending the prompt to having its result."""
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self._port}") as client, connect(client) as messages:
            began = time.perf_counter()
            async with client.post("/prompt", json={"prompt": prompt, "client_id": CLIENT}) as response:
                answer = await response.json()
            asked = answer.get("prompt_id")
            while asked and not is_end(await messages.receive_json(), asked):
                pass
            async with client.get(f"/history/{asked}") as response:
                result = (await response.json()).get(asked, answer)
            seconds = time.perf_counter() - began
        if result.get("status", {}).get("status_str") != "success":
            raise RuntimeError(f"the server did not run the prompt: {result}")
        return seconds


def connect(client: aiohttp.ClientSession) -> Any:
    """The websocket on which the server tells how far it is."""
    return client.ws_connect("/ws", params={"clientId": CLIENT}, timeout=aiohttp.ClientWSTimeout(ws_receive=PATIENCE))


def find_free_port() -> int:
    """A port on the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast(int, probe.getsockname()[1])


def is_end(message: dict[str, Any], prompt_id: str) -> bool:
    """Whether a message says that the prompt is done and its result in /history."""
    data = message.get("data", {})
    return message["type"] == "executing" and data.get("node") is None and data.get("prompt_id") == prompt_id


def write_prompt(setting: Setting, seed: int) -> dict[str, Any]:
    """The default graph, as ComfyUI's API wants it."""
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "unet": ("UNETLoader", {"unet_name": UNET, "weight_dtype": "default"}),
        "lora": ("LoraLoaderModelOnly", {"model": ["unet", 0], "lora_name": LORA, "strength_model": 1.0}),
        "auraflow": ("ModelSamplingAuraFlow", {"model": ["lora", 0], "shift": 3.0}),
        "cfg_norm": ("CFGNorm", {"model": ["auraflow", 0], "strength": 1.0}),
        "positive": ("LatentgridLoadConditioning", {"path": str(setting.fixture / "positive.pt")}),
        "negative": ("LatentgridLoadConditioning", {"path": str(setting.fixture / "negative.pt")}),
        "latent": ("LatentgridLoadLatent", {"path": str(setting.fixture / "latent.pt")}),
        "save": ("SaveLatent", {"samples": ["sampler", 0], "filename_prefix": "sampler"}),
    }
    links = {"model": "cfg_norm", "positive": "positive", "negative": "negative", "latent_image": "latent"}
    values = {"seed": seed, "steps": setting.steps, "cfg": 1.0, "denoise": 1.0}
    names = {"sampler_name": "euler", "scheduler": "simple"}
    nodes["sampler"] = ("KSampler", {**{key: [name, 0] for key, name in links.items()}, **values, **names})
    return {name: {"class_type": class_type, "inputs": inputs} for name, (class_type, inputs) in nodes.items()}


# What is measured


@dataclass
class Subject:
    """Something that samples, and its figures in seconds and bytes, an entry for each round.

    once: a process in this folder that samples one seed and ends (a server: that stands ready).
    loop: a process in this folder that runs seeds one after the other.
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
        """One run in a fresh process."""
        with self.once(folder) as process:
            if isinstance(process, Server):
                process.run(42)
            else:
                process.finish("42\n")
            self.cold_end.append(time.time() - process.started)
            self.cold_latent.append(process.read_clock()[0]["ended"] - process.started)

    def measure_warm(self, process: Process, seed: int) -> None:
        """One more run in a process that has run before."""
        seconds, *composing = process.run(seed)
        call = process.read_clock()[-1]
        self.sampling.append(call["seconds"])
        self.beyond.append(seconds - call["seconds"])
        self.composing.extend(composing)
        self.digests.append(call["digest"])

    def measure_memory(self, process: Process) -> None:
        """Peaks so far: of the process, with its children, of the GPU."""
        measured = psutil.Process(process.popen.pid)
        own = read_peak(measured)
        children = sum(read_peak(child) for child in measured.children(recursive=True))
        self.memory = own, own + children, max(call["gpu_peak"] for call in process.read_clock())


def read_peak(process: psutil.Process) -> int:
    """Peak resident size in bytes; where the system does not keep it, the present one."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.is_file():
        return int(getattr(process.memory_info(), "peak_wset", process.memory_info().rss))
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def list_subjects(setting: Setting) -> list[Subject]:
    """All that is measured, in the order of the table."""
    bare: list[str | Path] = [ROOT / "benchmarks/_bare.py", setting.comfyui.path, setting.fixture, str(setting.steps)]
    return [
        Subject(BARE, lambda folder: Process(folder, bare), lambda folder: Loop(folder, bare)),
        make_own_subject(NONE, setting, lambda folder: []),
        make_own_subject(MLFLOW, setting, lambda folder: [f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]),
        make_server_subject("server", setting),
        make_server_subject("server, no API", setting, "--disable-api-nodes"),
    ]


def make_own_subject(tracking: str, setting: Setting, more: Callable[[Path], list[str]]) -> Subject:
    """latentgrid with these overrides, from the command line and in a loop."""

    def overrides(folder: Path) -> list[str]:
        return ["experiment=tiny", tracking, f"sampler.steps={setting.steps}", *more(folder)]

    return Subject(
        tracking,
        lambda folder: Process(folder, [ROOT / "run.py", *overrides(folder), f"hydra.run.dir={folder / 'run'}"]),
        lambda folder: Loop(folder, ["pipeline.run", *overrides(folder)]),
    )


def make_server_subject(name: str, setting: Setting, *options: str) -> Subject:
    """ComfyUI's server with these further options."""
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
    for loop in loops:  # one by one, as they also start here
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


def say(text: str) -> None:
    """Show how far it is, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r{text} ...", end="\033[K\r", file=sys.stderr, flush=True)


# What is printed


def describe_conditions(setting: Setting, rounds: str) -> str:
    """Where, when and on what the figures were taken."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "mlflow"))
    memory = psutil.virtual_memory().total / 1e9
    lines = [
        f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}: python {' '.join(sys.argv)}",
        f"{os.cpu_count()} cores, {read_processor()}, {memory:.0f} GB, GPU: {setting.gpu or 'none'}; "
        f"{platform.system()}, load {os.getloadavg()[0]:.1f} before",
        f"Python {platform.python_version()}, {packages}, ComfyUI {setting.comfyui.version}",
        f"{setting.steps} steps; {rounds}",
    ]
    return "\n".join(lines)


def read_processor() -> str:
    """The model of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def format_table(subjects: list[Subject]) -> str:
    """One line for each subject: medians, and the range or quartiles beside them."""
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
    """A line of the table."""
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
    """The median, smallest and largest of a few values."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-"


def median(values: list[float]) -> float:
    """The median, NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def judge(subjects: list[Subject]) -> list[str]:
    """The goals, each with the figure and whether it is met."""
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
    """A line on a goal."""
    verdict = "met" if seconds <= allowed else "MISSED"
    return f"  {verdict:<7}{goal}: {1000 * seconds:.1f} ms, the goal is at most {1000 * allowed:.1f} ms"


def compare_latents(subjects: list[Subject]) -> str:
    """Whether all gave the same latent for the same seed."""
    same = all(subject.digests == subjects[0].digests for subject in subjects)
    return "All gave the same latents, bit for bit." if same else "The latents DIFFER: not all did the same work."


def find_gpu() -> str:
    """The name of the accelerator, empty without one; asked elsewhere, so that torch does not live here too."""
    code = (
        "import torch; found = torch.accelerator.current_accelerator(check_available=True);"
        "print(torch.cuda.get_device_name() if found and found.type == 'cuda' else found or '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


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
