"""Processes to be measured, all with the same clock (`_timed.py`), and a description of the machine."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import aiohttp
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.engine.comfyui.locate import Installation  # noqa: E402
from pipeline.models.tiny import LORA, UNET  # noqa: E402

PATIENCE = 300.0  # seconds to wait for something that does not answer
CLIENT = "benchmark"  # our client_id on the server


@dataclass(frozen=True)
class Setting:
    """The settings of all measurements. `gpu` is the name of the accelerator, empty without one."""

    comfyui: Installation
    fixture: Path
    gpu: str
    steps: int


class Process:
    """A script in a process of its own, in a new folder `folder`; its output goes to log.txt there."""

    def __init__(self, folder: Path, command: Sequence[str | Path]):
        folder.mkdir(parents=True, exist_ok=True)
        self._clock, self._log = folder / "clock.jsonl", folder / "log.txt"
        timed = [sys.executable, ROOT / "benchmarks/_timed.py", self._clock, *command]
        # Without bytecode every import would be compiled again, which is not part of normal use.
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
        """End the process: by the end of its input if it reads that, else by SIGTERM, else by SIGKILL."""
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
        """Run a seed and return its seconds, and how many of them were spent on composing the config."""
        raise NotImplementedError

    def finish(self, text: str) -> None:
        """Write its whole input, and wait until it has ended by itself."""
        self.popen.communicate(text, timeout=PATIENCE)
        if self.popen.returncode:
            raise self.failure()

    def read_clock(self) -> list[dict[str, Any]]:
        """Return the calls of KSampler so far."""
        return [json.loads(line) for line in self._clock.read_text().splitlines()]

    def read_end(self) -> dict[str, Any]:
        """Return what the clock wrote at the end of the process."""
        return cast(dict[str, Any], json.loads(self._clock.with_suffix(".end").read_text()))

    def failure(self) -> RuntimeError:
        """Return the error to raise when the process fails."""
        return RuntimeError(f"{self._log.parent.name} failed:\n{self._log.read_text()[-3000:]}")


class Loop(Process):
    """A script that runs a seed for each line of its standard input and prints `@ SECONDS...`."""

    def run(self, seed: int) -> list[float]:
        """Run a seed and return the numbers that the script prints."""
        assert self.popen.stdin and self.popen.stdout
        self.popen.stdin.write(f"{seed}\n")
        self.popen.stdin.flush()
        for line in self.popen.stdout:
            if line.startswith("@ "):
                return [float(word) for word in line.split()[1:]]
        raise self.failure()


class Server(Process):
    """ComfyUI's own server. It writes only to `folder`, and nothing into the folder of ComfyUI."""

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
        """Run a seed and return its seconds."""
        self.wait_until_listening()
        return [self.ask(write_prompt(self._setting, seed))]

    def ask(self, *prompts: dict[str, Any]) -> float:
        """Queue prompts at once, and return the seconds from sending the first to having the result of the last."""
        return self._loop.run_until_complete(self._ask(prompts))

    @property
    def address(self) -> str:
        """The address of its GUI."""
        return f"http://127.0.0.1:{self._port}/"

    def wait_until_listening(self) -> None:
        """Wait until the server accepts connections, tried every 10 ms. Raises RuntimeError after PATIENCE seconds."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if self.popen.poll() is not None or time.monotonic() > deadline:
                    raise self.failure() from None
                time.sleep(0.01)

    async def _ask(self, prompts: Sequence[dict[str, Any]]) -> float:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self._port}") as client, connect(client) as messages:
            began = time.perf_counter()
            asked = [await self._queue(client, prompt) for prompt in prompts]
            while not is_end(await messages.receive_json(), asked[-1]):
                pass
            results = [await self._read_result(client, one) for one in asked]
            seconds = time.perf_counter() - began
        for result in results:
            if result.get("status", {}).get("status_str") != "success":
                raise RuntimeError(f"the server did not run a prompt: {result}")
        return seconds

    async def _queue(self, client: aiohttp.ClientSession, prompt: dict[str, Any]) -> str:
        async with client.post("/prompt", json={"prompt": prompt, "client_id": CLIENT}) as response:
            answer = await response.json()
        if "prompt_id" not in answer:
            raise RuntimeError(f"the server refused a prompt: {answer}")
        return str(answer["prompt_id"])

    async def _read_result(self, client: aiohttp.ClientSession, prompt_id: str) -> dict[str, Any]:
        async with client.get(f"/history/{prompt_id}") as response:
            return cast(dict[str, Any], (await response.json()).get(prompt_id, {}))


def connect(client: aiohttp.ClientSession) -> Any:
    """Open the websocket on which the server reports its progress."""
    return client.ws_connect("/ws", params={"clientId": CLIENT}, timeout=aiohttp.ClientWSTimeout(ws_receive=PATIENCE))


def find_free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast(int, probe.getsockname()[1])


def is_end(message: dict[str, Any], prompt_id: str) -> bool:
    """Return whether a message says that the prompt is done and its result is in /history."""
    data = message.get("data", {})
    return message["type"] == "executing" and data.get("node") is None and data.get("prompt_id") == prompt_id


def write_prompt(
    setting: Setting, seed: int, steps: int | None = None, cfg: float = 1.0, strength: float = 1.0
) -> dict[str, Any]:
    """Return the graph of experiment=tiny in ComfyUI's API format."""
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "unet": ("UNETLoader", {"unet_name": UNET, "weight_dtype": "default"}),
        "lora": ("LoraLoaderModelOnly", {"model": ["unet", 0], "lora_name": LORA, "strength_model": strength}),
        "auraflow": ("ModelSamplingAuraFlow", {"model": ["lora", 0], "shift": 3.0}),
        "cfg_norm": ("CFGNorm", {"model": ["auraflow", 0], "strength": 1.0}),
        "positive": ("LatentgridLoadConditioning", {"path": str(setting.fixture / "positive.pt")}),
        "negative": ("LatentgridLoadConditioning", {"path": str(setting.fixture / "negative.pt")}),
        "latent": ("LatentgridLoadLatent", {"path": str(setting.fixture / "latent.pt")}),
        "save": ("SaveLatent", {"samples": ["sampler", 0], "filename_prefix": "sampler"}),
    }
    links = {"model": "cfg_norm", "positive": "positive", "negative": "negative", "latent_image": "latent"}
    values = {"seed": seed, "steps": steps or setting.steps, "cfg": cfg, "denoise": 1.0}
    names = {"sampler_name": "euler", "scheduler": "simple"}
    nodes["sampler"] = ("KSampler", {**{key: [name, 0] for key, name in links.items()}, **values, **names})
    return {name: {"class_type": class_type, "inputs": inputs} for name, (class_type, inputs) in nodes.items()}


def read_peak(process: psutil.Process) -> int:
    """Return the peak resident size in bytes, or the present one if the system does not record the peak."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.is_file():
        return int(getattr(process.memory_info(), "peak_wset", process.memory_info().rss))
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def say(text: str) -> None:
    """Print the progress if standard error is a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text} ...", end="\033[K\r", file=sys.stderr, flush=True)


def describe_conditions(setting: Setting, rounds: str) -> str:
    """Describe when, with what and on which machine the figures were taken."""
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
    """Return the name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def find_gpu() -> str:
    """Return the name of the accelerator, empty without one. A child process asks torch for it."""
    code = (
        "import torch; found = torch.accelerator.current_accelerator(check_available=True);"
        "print(torch.cuda.get_device_name() if found and found.type == 'cuda' else found or '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
