"""What latentgrid is measured against: the five nodes called by hand, on the same files, and nothing else.

    python benchmarks/_bare.py COMFYUI FIXTURE STEPS    one sample for each seed (a line of standard input)

Models and inputs are loaded once. For each seed it prints `@ SECONDS`, how long that sample took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

COMFYUI, FIXTURE, STEPS = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

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
    (model,) = nodes.UNETLoader().load_unet("tiny_qwen_image_fp8_e4m3fn.safetensors", "default")
    (model,) = nodes.LoraLoaderModelOnly().load_lora_model_only(model, "tiny_qwen_image_lora.safetensors", 1.0)
    (model,) = ModelSamplingAuraFlow().patch_aura(model, 3.0)
    (model,) = CFGNorm.execute(model, 1.0).args
    for line in sys.stdin:
        began = time.perf_counter()
        sampled = nodes.KSampler().sample(model, int(line), STEPS, 1.0, "euler", "simple", positive, negative, latent)
        print("@", time.perf_counter() - began, flush=True)
