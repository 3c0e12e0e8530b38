"""Fifty runs with varied settings, each run again from its record: all must be equal, and changes must be named.

    python benchmarks/round_trip.py

The default graph as a grid, the same in seed batches, an imported workflow, and runs with other graphs in processes of
their own; then a byte of a model, an input tensor, a seed and the version of ComfyUI are changed, one at a time. Works
on a copy of this checkout. Exits with status 1 if a rerun is not equal, or a change is not named.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlflow import MlflowClient
from mlflow.entities import Run

from benchmarks._processes import ROOT, say

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "outputs", "__pycache__", ".*_cache", "docs")
PARENT = "mlflow.parentRunId"
MODEL = "demo_shapes.safetensors"

GRIDS: tuple[tuple[str, ...], ...] = (
    (
        *("sampler.sampler_name=euler,dpmpp_2m,uni_pc", "sampler.steps=1,3"),
        *("sampler.cfg=1.0,2.5", f"seed=1,{2**64 - 1}"),
    ),
    ("seed=range(10,22)", "run.batch_seeds=3", "sampler.steps=2"),
    ("graph=shapes", "run.outputs=[sampler]", "sampler.steps=1,2", "sampler.scheduler=simple,karras", "seed=5,6"),
)
SINGLES: tuple[tuple[str, ...], ...] = (
    ("lora._bypass_=true",),
    ("auraflow.shift=2.25", "cfg_norm.strength=0.75", "lora.strength_model=0.5"),
    ("experiment=tiny", "sampler.denoise=0.6"),
    (
        *("+upscale._node_=LatentUpscaleBy", "+upscale.samples=[sampler,LATENT]", "+upscale.upscale_method=bicubic"),
        *("+upscale.scale_by=2.0", "run.outputs=[upscale]"),
    ),
    ("experiment=tiny", "run.save_pt=true", "sampler.sampler_name=dpmpp_sde", "sampler.steps=2"),
    ("sampler.sampler_name=lcm", "sampler.scheduler=sgm_uniform"),
)


class Checkout:
    """A copy of this checkout, with a record of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT)

    def call(self, *command: str, may_differ: bool = False) -> str:
        """Run a command there, and return its output. Raises RuntimeError if it fails."""
        say(" ".join(command))
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        if done.returncode not in ((0, 4) if may_differ else (0,)):
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def rerun(self, run: Run, *overrides: str) -> str:
        """Run a run, or all runs of a sweep, again, and return the output."""
        return self.call("-m", "pipeline", "rerun", run.info.run_id, "--verify", *overrides, may_differ=True)

    def read_runs(self) -> list[Run]:
        """Return the recorded runs, sweeps included, the oldest first."""
        client = MlflowClient(f"sqlite:///{self.folder}/outputs/mlflow.db")
        ids = [one.experiment_id for one in client.search_experiments()]
        return list(client.search_runs(ids, order_by=["attributes.start_time ASC"]))


def main() -> None:
    """Run everything, and print how many reruns are equal."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory(prefix="latentgrid-") as name:
        checkout = Checkout(Path(name, "checkout"))
        record_runs(checkout)
        runs = checkout.read_runs()
        count = sum("identity" in run.data.tags for run in runs)
        equal = sum(checkout.rerun(run).count(": equal: ") for run in runs if PARENT not in run.data.tags)
        print(f"{equal} of {count} runs are equal when run again")
        named = name_changes(checkout)
        print("changed, and named: " + ", ".join(f"{what}: {is_named}" for what, is_named in named.items()))
    if equal != count or not all(named.values()):
        sys.exit(1)


def record_runs(checkout: Checkout) -> None:
    """Run all grids and single runs. The imported workflow is the default graph as ComfyUI's GUI would save it."""
    checkout.call("-m", "pipeline", "export", "--output", "shapes.json")
    checkout.call("-m", "pipeline", "import", "shapes.json")
    for grid in GRIDS:
        checkout.call("run.py", "-m", *grid)
    for single in SINGLES:
        checkout.call("run.py", *single)


def name_changes(checkout: Checkout) -> dict[str, bool]:
    """Change one thing at a time, and return for each whether the rerun or the comparison names it."""
    checkout.call("-c", write_latent(0.0))
    for seed in (1, 2):
        checkout.call("run.py", "experiment=tiny", "latent.path=latent.pt", "sampler.denoise=0.5", f"seed={seed}")
    first, second = checkout.read_runs()[-2:]
    named = {
        "seed": "seed" in checkout.call("-m", "pipeline", "compare", first.info.run_id, second.info.run_id),
        "version of ComfyUI": "version.comfyui" in checkout.rerun(first, "comfyui.version=0.24.1"),
    }
    checkout.call("-c", write_latent(1.0))
    named["input tensor"] = "tensor.latent" in checkout.rerun(first)
    checkout.call("-c", write_latent(0.0))
    drawn = next(run for run in checkout.read_runs() if run.data.params.get("unet.unet_name") == MODEL)
    flip_bit(checkout.folder / "models/diffusion_models" / MODEL)
    named["byte of a model"] = "file.unet.unet_name" in checkout.rerun(drawn)
    return named


def write_latent(value: float) -> str:
    """Return Python code that writes an input file."""
    return f"import torch; torch.save(torch.full((1, 16, 1, 16, 16), {value}), 'latent.pt')"


def flip_bit(path: Path) -> None:
    """Change one bit of a model's weights."""
    content = bytearray(path.read_bytes())
    content[-5_000_001] ^= 1
    path.write_bytes(content)


if __name__ == "__main__":
    main()
