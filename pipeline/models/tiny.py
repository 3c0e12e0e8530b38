"""The `tiny` fixture: a Qwen-Image checkpoint with one transformer block, a LoRA and inputs, made on first use.

It has the real architecture (hidden size 3072, 24 heads; about 380 M parameters in fp8, 0.4 GB), so the real code
loads, patches and samples it on any CPU. Its weights are random from a fixed seed, so its pictures are noise.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.cache_folder import cache_folder

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

UNET = "tiny_qwen_image_fp8_e4m3fn.safetensors"
LORA = "tiny_qwen_image_lora.safetensors"
INPUTS = ("positive.pt", "negative.pt", "latent.pt")
SEED = 0

HIDDEN, HEAD, TEXT, LATENT = 3072, 128, 3584, 64  # as Qwen-Image; LATENT is 16 channels of 2x2 patches
LORA_RANK = 4


def tiny_folder() -> Path:
    """Return the folder of the fixture, which holds models/ (laid out like ComfyUI's) and the inputs.

    The 1 in its name is the version of the fixture.
    """
    return cache_folder() / "tiny_qwen_image_1"


def names_tiny_model(config: Any) -> bool:
    """Return whether a config names a file of the fixture anywhere."""
    if isinstance(config, Mapping):
        return any(names_tiny_model(value) for value in config.values())
    if isinstance(config, list):
        return any(names_tiny_model(value) for value in config)
    return isinstance(config, str) and (config in (UNET, LORA) or config.startswith(str(tiny_folder())))


def make_tiny_model() -> Path:
    """Make the fixture if it does not exist, and return its folder. Several processes may call it at once."""
    folder = tiny_folder()
    if folder.is_dir():
        return folder
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _make(folder)
    return folder


def _make(folder: Path) -> None:
    log.info("making the tiny Qwen-Image model (0.4 GB, once) ...")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tiny_", dir=folder.parent) as temporary:
        _write_models(Path(temporary) / "whole" / "models")
        _write_inputs(Path(temporary) / "whole")
        shutil.move(str(Path(temporary) / "whole"), folder)  # a rename within one file system: complete or not at all
    log.info("... made in %.1f s: %s", time.perf_counter() - start, folder)


def _write_models(models: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (models / "diffusion_models").mkdir(parents=True)
    (models / "loras").mkdir()
    save_file(make_checkpoint(), models / "diffusion_models" / UNET)
    random = torch.Generator().manual_seed(SEED + 1)
    lora = {
        f"transformer_blocks.0.attn.{name}.{key}": tensor
        for name in ("to_q", "to_k", "to_v", "to_out.0")
        for key, tensor in _make_lora(random).items()
    }
    save_file(lora, models / "loras" / LORA)


def _make_lora(random: torch.Generator) -> dict[str, torch.Tensor]:
    import torch

    return {
        "lora_down.weight": torch.randn(LORA_RANK, HIDDEN, generator=random) * 0.05,
        "lora_up.weight": torch.randn(HIDDEN, LORA_RANK, generator=random) * 0.05,
        "alpha": torch.tensor(float(LORA_RANK)),
    }


def make_checkpoint(blocks: int = 1) -> dict[str, torch.Tensor]:
    """Return a state dict of Qwen-Image with `blocks` transformer blocks; the real model has 60.

    Weights are float8_e4m3fn; biases and norms are bfloat16.
    """
    import torch

    random = torch.Generator().manual_seed(SEED)
    state = {}
    for name, shape in _list_shapes(blocks):
        if len(shape) == 1:
            fill = torch.ones if "norm" in name else torch.zeros
            state[name] = fill(shape, dtype=torch.bfloat16)
        else:
            weight = torch.randn(shape, generator=random, dtype=torch.float32).mul_(shape[1] ** -0.5)
            state[name] = weight.to(torch.float8_e4m3fn)
    return state


def _list_shapes(blocks: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of the parameters, as in ComfyUI's comfy/ldm/qwen_image/model.py."""
    yield "txt_norm.weight", (TEXT,)
    yield from _linear("time_text_embed.timestep_embedder.linear_1", 256, HIDDEN)
    yield from _linear("time_text_embed.timestep_embedder.linear_2", HIDDEN, HIDDEN)
    yield from _linear("img_in", LATENT, HIDDEN)
    yield from _linear("txt_in", TEXT, HIDDEN)
    for index in range(blocks):
        yield from _list_block_shapes(f"transformer_blocks.{index}")
    yield from _linear("norm_out.linear", HIDDEN, 2 * HIDDEN)
    yield from _linear("proj_out", HIDDEN, LATENT)


def _list_block_shapes(block: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for stream in ("img", "txt"):
        yield from _linear(f"{block}.{stream}_mod.1", HIDDEN, 6 * HIDDEN)
        yield from _linear(f"{block}.{stream}_mlp.net.0.proj", HIDDEN, 4 * HIDDEN)
        yield from _linear(f"{block}.{stream}_mlp.net.2", 4 * HIDDEN, HIDDEN)
    for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"):
        yield from _linear(f"{block}.attn.{name}", HIDDEN, HIDDEN)
    for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        yield f"{block}.attn.{name}.weight", (HEAD,)


def _linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _write_inputs(folder: Path) -> None:
    """Write two conditionings [1, 16, 3584] (bfloat16) and a latent of zeros [1, 16, 1, 16, 16].

    The conditionings carry a reference latent, as the edit model gets them.
    """
    import torch

    random = torch.Generator().manual_seed(SEED + 2)
    reference = torch.randn(1, 16, 1, 16, 16, generator=random)
    for name in INPUTS[:2]:
        conditioning = torch.randn(1, 16, TEXT, generator=random, dtype=torch.float32).to(torch.bfloat16)
        torch.save([[conditioning, {"reference_latents": [reference]}]], folder / name)
    torch.save({"samples": torch.zeros(1, 16, 1, 16, 16)}, folder / INPUTS[2])
