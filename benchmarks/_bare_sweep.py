"""The ideal that a sweep is measured against: a grid in the best order, by hand, calling only what must be called.

    python benchmarks/_bare_sweep.py COMFYUI FIXTURE    a JSON list of cells on standard input

A cell is [seed, steps, cfg, LoRA strength]. The checkpoint and the inputs are loaded once, the LoRA is patched once for
each strength. Nothing is kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

COMFYUI, FIXTURE = Path(sys.argv[1]), Path(sys.argv[2])

sys.path.insert(0, str(COMFYUI))
import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = not torch.accelerator.is_available()
args.models_directory = str(FIXTURE / "models")

from comfy_extras.nodes_cfg import CFGNorm  # noqa: E402
from comfy_extras.nodes_model_advanced import ModelSamplingAuraFlow  # noqa: E402

import nodes  # noqa: E402

with torch.inference_mode():
    positive, negative, latent = (torch.load(FIXTURE / f"{name}.pt") for name in ("positive", "negative", "latent"))
    (unet,) = nodes.UNETLoader().load_unet("tiny_qwen_image_fp8_e4m3fn.safetensors", "default")
    loader, patched = nodes.LoraLoaderModelOnly(), None
    for seed, steps, cfg, strength in sorted(json.load(sys.stdin), key=lambda cell: cell[::-1]):
        if strength != patched:
            (model,) = loader.load_lora_model_only(unet, "tiny_qwen_image_lora.safetensors", strength)
            (model,) = ModelSamplingAuraFlow().patch_aura(model, 3.0)
            (model,) = CFGNorm.execute(model, 1.0).args
            patched = strength
        nodes.KSampler().sample(model, seed, steps, cfg, "euler", "simple", positive, negative, latent)
