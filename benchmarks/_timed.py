"""Runs a script as `python SCRIPT ARGS...` would, with a clock on every call of KSampler's function.

    python benchmarks/_timed.py CLOCK SCRIPT [ARGS...]
    python benchmarks/_timed.py CLOCK pipeline.run [OVERRIDES...]    latentgrid in a loop, a seed on each line of stdin

The clock is the same for whatever is measured, so it favours none. For each call a JSON line is added to the file
CLOCK: the time it ended, how long it took, a digest of the latent, and the peak memory of the GPU so far.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


class ClockOnKSampler:
    """An import hook: puts the clock on KSampler as soon as ComfyUI's module `nodes` is imported."""

    def __init__(self, clock: Path):
        self._clock = clock

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """The usual spec of `nodes`, with a loader that adds the clock; None for all other modules."""
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
            "gpu_peak": cuda.max_memory_allocated() if cuda.is_initialized() else 0,
        }
        with self._clock.open("a") as file:
            file.write(json.dumps(note) + "\n")


def run_in_loop(overrides: list[str]) -> None:
    """`pipeline.run` for each seed on standard input; prints `@ SECONDS SECONDS-OF-THEM-COMPOSING`."""
    from pipeline import run
    from pipeline.config import compose_config

    for number, seed in enumerate(sys.stdin):
        began = time.perf_counter()
        config = compose_config([*overrides, f"seed={int(seed)}"])
        composed = time.perf_counter()
        run(config, folder=f"runs/{number}")
        print("@", time.perf_counter() - began, composed - began, flush=True)


def main(clock: str, script: str, *args: str) -> None:
    """Run the script with the clock on."""
    sys.meta_path.insert(0, ClockOnKSampler(Path(clock)))
    root = str(Path(__file__).resolve().parents[1])
    sys.path[0] = root if script == "pipeline.run" else os.path.dirname(script)  # noqa: PTH120
    if script == "pipeline.run":
        run_in_loop(list(args))
    else:
        sys.argv = [script, *args]
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
