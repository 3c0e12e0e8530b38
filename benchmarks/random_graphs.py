"""Random graphs of ComfyUI's core nodes, run by our executor and by ComfyUI's own, and compared tensor by tensor.

    python benchmarks/random_graphs.py --count 500 --seed 0

Exits with status 1 at the first graph whose outputs differ, and prints it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

Prompt = dict[str, dict[str, Any]]

# class_type -> (type of its first output, types of its links by input, its constants).
KINDS: dict[str, tuple[str, dict[str, str], Callable[[random.Random], dict[str, Any]]]] = {
    "EmptyImage": (
        "IMAGE",
        {},
        lambda r: {"width": 16, "height": 16, "batch_size": r.randint(1, 2), "color": r.randrange(2**24)},
    ),
    "ImageInvert": ("IMAGE", {"image": "IMAGE"}, lambda r: {}),
    "ImageScale": (
        "IMAGE",
        {"image": "IMAGE"},
        lambda r: {
            "upscale_method": r.choice(["nearest-exact", "bilinear", "area"]),
            "width": 16,
            "height": 16,
            "crop": "disabled",
        },
    ),
    "ImageBlend": (
        "IMAGE",
        {"image1": "IMAGE", "image2": "IMAGE"},
        lambda r: {"blend_factor": r.random(), "blend_mode": r.choice(["normal", "multiply", "screen"])},
    ),
    "ImageBatch": ("IMAGE", {"image1": "IMAGE", "image2": "IMAGE"}, lambda r: {}),
    "ImageFromBatch": ("IMAGE", {"image": "IMAGE"}, lambda r: {"batch_index": r.randint(0, 2), "length": 1}),
    "RepeatImageBatch": ("IMAGE", {"image": "IMAGE"}, lambda r: {"amount": r.randint(1, 2)}),
    "MaskToImage": ("IMAGE", {"mask": "MASK"}, lambda r: {}),
    "SolidMask": ("MASK", {}, lambda r: {"value": r.random(), "width": 16, "height": 16}),
    "InvertMask": ("MASK", {"mask": "MASK"}, lambda r: {}),
    "ImageToMask": ("MASK", {"image": "IMAGE"}, lambda r: {"channel": r.choice(["red", "green", "blue"])}),
    "MaskComposite": (
        "MASK",
        {"destination": "MASK", "source": "MASK"},
        lambda r: {
            "x": r.randint(0, 8),
            "y": r.randint(0, 8),
            "operation": r.choice(["multiply", "add", "subtract", "or"]),
        },
    ),
    "GrowMask": ("MASK", {"mask": "MASK"}, lambda r: {"expand": r.randint(-2, 2), "tapered_corners": r.random() < 0.5}),
    "EmptyLatentImage": ("LATENT", {}, lambda r: {"width": 64, "height": 64, "batch_size": r.randint(1, 2)}),
    "LatentUpscaleBy": ("LATENT", {"samples": "LATENT"}, lambda r: {"upscale_method": "bilinear", "scale_by": 1.0}),
    "LatentFlip": (
        "LATENT",
        {"samples": "LATENT"},
        lambda r: {"flip_method": r.choice(["x-axis: vertically", "y-axis: horizontally"])},
    ),
    "LatentAdd": ("LATENT", {"samples1": "LATENT", "samples2": "LATENT"}, lambda r: {}),
    "LatentMultiply": ("LATENT", {"samples": "LATENT"}, lambda r: {"multiplier": r.uniform(-2, 2)}),
    "SetLatentNoiseMask": ("LATENT", {"samples": "LATENT", "mask": "MASK"}, lambda r: {}),
    "KarrasScheduler": (
        "SIGMAS",
        {},
        lambda r: {"steps": r.randint(1, 8), "sigma_max": 14.0, "sigma_min": 0.03, "rho": 7.0},
    ),
    "FlipSigmas": ("SIGMAS", {"sigmas": "SIGMAS"}, lambda r: {}),
    "ComfySwitchNode": ("IMAGE", {"on_false": "IMAGE", "on_true": "IMAGE"}, lambda r: {"switch": r.random() < 0.5}),
    "RebatchImages": ("IMAGE", {"images": "IMAGE"}, lambda r: {"batch_size": 1}),
}
SHOWN = ("IMAGE", "MASK", "LATENT", "SIGMAS")


def make_prompt(seed: int, size: int = 14) -> Prompt:
    """Return a random graph: every node reads nodes made before it, and nodes that are not read are outputs."""
    chance = random.Random(seed)
    prompt: Prompt = {}
    made: dict[str, list[str]] = {kind: [] for kind in SHOWN}
    while len(prompt) < size:
        class_type = chance.choice(list(KINDS))
        kind, links, draw = KINDS[class_type]
        if not all(made[one] for one in links.values()):
            continue
        name = str(len(prompt) + 1)
        inputs = {key: [chance.choice(made[one]), 0] for key, one in links.items()}
        prompt[name] = {"class_type": class_type, "inputs": {**draw(chance), **inputs}}
        made[kind].append(name)
    read = {one[0] for info in prompt.values() for one in info["inputs"].values() if isinstance(one, list)}
    for name in [name for name in prompt if name not in read]:
        prompt[f"out_{name}"] = {"class_type": "PreviewAny", "inputs": {"source": [name, 0]}}
    return prompt


class Reference:
    """ComfyUI's own PromptExecutor, which retains all outputs of a prompt for the comparison."""

    def __init__(self, session: Any):
        execution = session.comfyui.execution
        self._execution = execution
        self._executor = execution.PromptExecutor(
            session.comfyui.server,
            cache_type=execution.CacheType.CLASSIC,
            cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0},
        )

    def run(self, prompt: Prompt) -> tuple[bool, Mapping[str, Any]]:
        """Return whether the prompt ran to its end, and the outputs of the nodes that ran, by node."""
        prompt = json.loads(json.dumps(prompt))
        valid, error, outputs, _ = asyncio.run(self._execution.validate_prompt("reference", prompt, None))
        assert valid, error
        self._executor.execute(prompt, "reference", {}, outputs)
        cache = self._executor.caches.outputs
        found = {name: cache.get_local(name) for name in prompt}
        return self._executor.success, {name: one.outputs for name, one in found.items() if one is not None}


def run_ours(session: Any, prompt: Prompt) -> tuple[bool, Mapping[str, Any]]:
    """Return the same as `Reference.run`, from latentgrid's executor."""
    from pipeline.errors import NodeError

    checked = session.check_prompt(prompt)
    try:
        session.run(checked)
        done = True
    except NodeError:
        done = False
    keys, cache = session.make_keys(checked), session._executor.cache
    found = {name: cache.find(keys[name]) for name in checked.order if not checked.signatures[name].is_output_node}
    return done, {name: one.outputs for name, one in found.items() if one is not None}


def equal(left: Any, right: Any) -> bool:
    """Return whether two values are the same: tensors bit for bit, models and samplers by their class."""
    import torch

    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    plain = isinstance(left, str | int | float | None)
    return bool(left == right) if plain else type(left) is type(right)


def find_difference(session: Any, reference: Reference, prompt: Prompt) -> tuple[str | None, bool]:
    """Return how our run of a prompt differs from ComfyUI's, or None, and whether it ran to its end."""
    session.clear()
    (done, ours), (theirs_done, theirs) = run_ours(session, prompt), reference.run(prompt)
    if done != theirs_done:
        return f"ours {'ran' if done else 'failed'}, ComfyUI's {'ran' if theirs_done else 'failed'}", done
    if not done:  # which other nodes had run depends on the order
        return None, done
    wanted = {name for name in theirs if prompt[name]["class_type"] != "PreviewAny"}
    if wanted != set(ours):
        return f"outputs of other nodes: {sorted(wanted ^ set(ours))}", done
    return next((f"node {name} differs" for name in ours if not equal(ours[name], theirs[name])), None), done


def main() -> None:
    """Compare `--count` graphs."""
    from pipeline.engine.comfyui.settings import ComfyUISettings
    from pipeline.engine.comfyui.start import start_comfyui
    from pipeline.engine.session import Session

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    session = Session(start_comfyui(ComfyUISettings(device="cpu")))
    reference = Reference(session)
    finished = 0
    for seed in range(options.seed, options.seed + options.count):
        prompt = make_prompt(seed)
        difference, done = find_difference(session, reference, prompt)
        finished += done
        if difference:
            print(f"seed {seed}: {difference}\n{json.dumps(prompt, indent=1)}")
            sys.exit(1)
    print(f"{options.count} graphs, of which {finished} ran to their end: no difference")


if __name__ == "__main__":
    main()
