"""Run a script as `python SCRIPT ARGS...` would, with a clock on every call of KSampler's function.

    python benchmarks/_timed.py CLOCK SCRIPT [ARGS...]
    python benchmarks/_timed.py CLOCK -m MODULE [ARGS...]
    python benchmarks/_timed.py CLOCK pipeline.run [OVERRIDES...]    latentgrid in a loop, a seed on each line of stdin

The clock is the same for everything that is measured. For each call a JSON line is added to the file CLOCK: when it
ended, how long it took, a digest of the latent, and the memory of the process and of the GPU. At the end CLOCK.end has
how often a checkpoint was loaded, and how often its weights were patched by a LoRA on average.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.machinery
import json
import os
import resource
import runpy
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil


class ClockOnKSampler:
    """An import hook that puts the clock on KSampler as soon as ComfyUI's module `nodes` is imported."""

    def __init__(self, clock: Path):
        self._clock = clock
        self._loads = 0
        self._patches: Counter[str] = Counter()
        atexit.register(self._note_end)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return the usual spec of `nodes` with a loader that adds the clock; None for all other modules."""
        if name != "nodes":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._execute(execute, module)  # type: ignore[method-assign]
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        module.KSampler.sample = self._timed(module.KSampler.sample)
        comfy: Any = sys.modules["comfy"]
        comfy.sd.load_diffusion_model = self._counted_loads(comfy.sd.load_diffusion_model)
        patcher = comfy.model_patcher.ModelPatcher
        patcher.patch_weight_to_device = self._counted_patches(patcher.patch_weight_to_device)

    def _counted_loads(self, load: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._loads += 1
            return load(*args, **kwargs)

        return counted

    def _counted_patches(self, patch: Callable[..., Any]) -> Callable[..., Any]:
        def counted(patcher: Any, key: str, *args: Any, **kwargs: Any) -> Any:
            if key in patcher.patches:
                self._patches[key] += 1
            return patch(patcher, key, *args, **kwargs)

        return counted

    def _note_end(self) -> None:
        patches = sum(self._patches.values()) / max(1, len(self._patches))
        end = {"loads": self._loads, "patches": patches, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
        self._clock.with_suffix(".end").write_text(json.dumps(end))

    def _timed(self, sample: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            returned = sample(*args, **kwargs)
            self._note(time.perf_counter() - began, time.time(), returned[0]["samples"])
            return returned

        return timed

    def _note(self, seconds: float, ended: float, samples: Any) -> None:
        cuda = sys.modules["torch"].cuda
        note = {
            "ended": ended,
            "seconds": seconds,
            "digest": hashlib.sha256(samples.cpu().contiguous().numpy().tobytes()).hexdigest(),
            "memory": psutil.Process().memory_info().rss,
            "gpu_peak": cuda.max_memory_allocated() if cuda.is_initialized() else 0,
        }
        with self._clock.open("a") as file:
            file.write(json.dumps(note) + "\n")


def run_in_loop(overrides: list[str]) -> None:
    """Call `pipeline.run` for each seed on standard input, and print `@ SECONDS SECONDS-OF-THEM-COMPOSING`."""
    from pipeline import run
    from pipeline.config.read import compose_config

    for number, seed in enumerate(sys.stdin):
        began = time.perf_counter()
        config = compose_config([*overrides, f"seed={int(seed)}"])
        composed = time.perf_counter()
        run(config, folder=f"runs/{number}")
        print("@", time.perf_counter() - began, composed - began, flush=True)


def main(clock: str, script: str, *args: str) -> None:
    """Run the script with the clock on."""
    sys.meta_path.insert(0, ClockOnKSampler(Path(clock)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that a server also writes CLOCK.end
    root = str(Path(__file__).resolve().parents[1])
    sys.path[0] = root if script in ("pipeline.run", "-m") else os.path.dirname(script)  # noqa: PTH120
    if script == "pipeline.run":
        run_in_loop(list(args))
    elif script == "-m":
        sys.argv = list(args)
        runpy.run_module(args[0], run_name="__main__")
    else:
        sys.argv = [script, *args]
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
