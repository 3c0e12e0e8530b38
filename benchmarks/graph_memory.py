"""The peak memory of a graph, beside ComfyUI's own executor on the same prompt, for each way to retain outputs.

    python benchmarks/graph_memory.py

The graph is a chain of diamonds: each image is inverted, and blended with what it was made of. An image is 201 MB. Each
figure comes from a process of its own: its peak resident size less its size before the graph.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from _processes import read_peak

POLICIES = ("classic", "none")
EXECUTORS = ("latentgrid", "ComfyUI")


def make_prompt(length: int, side: int) -> dict[str, Any]:
    """Return `length` diamonds on an image of `side` x `side` pixels, with the size of the last image as the output."""
    nodes: dict[str, Any] = {
        "0": {"class_type": "EmptyImage", "inputs": {"width": side, "height": side, "batch_size": 1, "color": 255}}
    }
    for number in range(length):
        source, inverted = [str(2 * number), 0], str(2 * number + 1)
        nodes[inverted] = {"class_type": "ImageInvert", "inputs": {"image": source}}
        blended = {"image1": source, "image2": [inverted, 0], "blend_factor": 0.3, "blend_mode": "normal"}
        nodes[str(2 * number + 2)] = {"class_type": "ImageBlend", "inputs": blended}
    nodes["size"] = {"class_type": "GetImageSize", "inputs": {"image": [str(2 * length), 0]}}
    nodes["out"] = {"class_type": "PreviewAny", "inputs": {"source": ["size", 0]}}
    return nodes


def run_one(executor: str, policy: str, prompt: dict[str, Any]) -> int:
    """Run the prompt, and return the bytes by which the process grew."""
    from pipeline.engine.comfyui.settings import ComfyUISettings
    from pipeline.engine.comfyui.start import start_comfyui
    from pipeline.engine.session import Session

    session = Session(start_comfyui(ComfyUISettings(device="cpu")))
    session.check_prompt(prompt)
    before = psutil.Process().memory_info().rss
    if executor == "latentgrid":
        session.use_cache(policy)
        session.run(prompt)
    else:
        execution = session.comfyui.execution
        theirs = execution.PromptExecutor(
            session.comfyui.server,
            cache_type=getattr(execution.CacheType, policy.upper()),
            cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0},
        )
        _, _, outputs, _ = asyncio.run(execution.validate_prompt("memory", prompt, None))
        theirs.execute(prompt, "memory", {}, outputs)
        assert theirs.success
    return read_peak(psutil.Process()) - before


def main() -> None:
    """Print a line for each policy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--length", type=int, default=8, help="diamonds (default 8)")
    parser.add_argument("--side", type=int, default=4096, help="pixels (default 4096)")
    parser.add_argument("--one", nargs=2, metavar=("EXECUTOR", "POLICY"), help="just one figure, in this process")
    given = parser.parse_args()
    if given.one:
        print(run_one(*given.one, make_prompt(given.length, given.side)))
        return
    for policy in POLICIES:
        grown = {}
        for executor in EXECUTORS:
            command = [sys.executable, __file__, "--length", str(given.length), "--side", str(given.side)]
            done = subprocess.run(
                [*command, "--one", executor, policy], check=True, text=True, stdout=subprocess.PIPE, cwd=Path.cwd()
            )
            grown[executor] = json.loads(done.stdout.split()[-1])
        print(f"{policy:<8}", *(f"{executor} {size / 1e9:.2f} GB" for executor, size in grown.items()), sep="  ")


if __name__ == "__main__":
    main()
