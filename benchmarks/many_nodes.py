"""What a node costs besides what it computes: a graph of 1,000 cheap nodes, checked and run.

python benchmarks/many_nodes.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    """Print milliseconds a node of checking, of running, and of running again from the cache."""
    from pipeline.engine.comfyui.settings import ComfyUISettings
    from pipeline.engine.comfyui.start import start_comfyui
    from pipeline.engine.session import Session

    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    session = Session(start_comfyui(ComfyUISettings(device="cpu")))
    prompt = {"0": {"class_type": "SolidMask", "inputs": {"value": 0.5, "width": 8, "height": 8}}}
    for index in range(1, options.nodes - 1):
        prompt[str(index)] = {"class_type": "InvertMask", "inputs": {"mask": [str(index - 1), 0]}}
    prompt["out"] = {"class_type": "PreviewAny", "inputs": {"source": [str(options.nodes - 2), 0]}}
    seconds: dict[str, list[float]] = {"check": [], "run": [], "again": []}
    for _ in range(options.rounds):
        session.clear()
        began = time.perf_counter()
        checked = session.check_prompt(prompt)
        seconds["check"].append(time.perf_counter() - began)
        for what, count in (("run", options.nodes), ("again", 0)):
            began = time.perf_counter()
            execution = session.run(checked)
            seconds[what].append(time.perf_counter() - began)
            assert len(execution.executed) == count
    for what, values in seconds.items():
        print(f"{what:<6} {statistics.median(values) / options.nodes * 1000:.3f} ms a node")


if __name__ == "__main__":
    main()
