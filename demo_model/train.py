"""Train the demo model, or a LoRA on it, on pictures that are drawn during the training.

    python -m demo_model.train                      the model
    python -m demo_model.train --config-name=lora   the outline LoRA, on the trained model

The architecture is ComfyUI's own WanModel, so UNETLoader loads what is trained. The objective is rectified flow
(Liu et al. 2022, arXiv:2209.03003) as ComfyUI samples it: x_t = (1 - t) x_0 + t noise, and the model predicts
noise - x_0.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import torch
from latentgrid_nodes.captions import TEXT_DIM, encode_caption
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn

from demo_model.latents import PictureCodec
from demo_model.lora import add_lora, collect_lora
from demo_model.pictures import blur_caption, choose_scene, draw_pictures
from pipeline.engine.comfyui.settings import ComfyUISettings
from pipeline.engine.comfyui.start import start_comfyui

log = logging.getLogger(__name__)

VALIDATION_SEED = 1_000_000
VALIDATION_BATCHES = 8

NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-8, 0), (8, 0), (0, -8), (0, 8))
"""Where the heads look at first, in tokens down and to the right: at a neighbour, or at everything on one side."""

LOCALITY = 4.0
"""How sharply the heads look there: the size of the biases of q and k, whose other part has a variance of 1."""


@hydra.main(config_path="conf", config_name="model", version_base="1.3")
def main(config: DictConfig) -> None:
    """Train as demo_model/conf/model.yaml or lora.yaml says, and write one safetensors file."""
    train(config)


def train(config: DictConfig) -> float:
    """Train, write `config.output`, and return the validation loss of the averaged weights.

    The same seed, threads and machine give the same file.
    """
    torch.manual_seed(config.seed)
    model, latent_format = make_model(config.model)
    if config.start:
        model.load_state_dict({name: weight.float() for name, weight in load_file(config.start).items()})
    else:
        initialise(model)
    if config.lora_rank:
        add_lora(model, config.lora_rank)
    if config.compile:
        for block in model.blocks:
            block.compile(dynamic=False)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    log.info("training %d parameters", sum(map(torch.numel, trained.values())))
    codec = PictureCodec(latent_format)
    loss = float("nan")
    for step, averaged in _optimise(model, trained, codec, config):
        if step % config.write_every == 0 or step == config.steps:
            with _exchanged(trained, averaged):
                loss = _validate(model, codec, config)
                _write(model, config, step, loss)
    return loss


def make_model(settings: DictConfig) -> tuple[Any, Any]:
    """Return ComfyUI's WanModel (text to video) of these dimensions, uninitialised, float32, and its latent format.

    UNETLoader takes for granted what `settings` cannot change: 16 channels in and out, and patches of 1x2x2.
    """
    start_comfyui(ComfyUISettings(device="cpu", args={"use_pytorch_cross_attention": True}))
    import comfy.latent_formats
    import comfy.ldm.wan.model
    import comfy.model_management

    comfy.model_management.in_training = True  # its fused kernels have no gradient
    dimensions: Any = OmegaConf.to_object(settings)
    model = comfy.ldm.wan.model.WanModel(**dimensions, text_dim=TEXT_DIM, operations=nn, dtype=torch.float32)
    return model, comfy.latent_formats.Wan21()


def initialise(model: Any) -> None:
    """Initialise the weights by Xavier, but so that at first each block adds little and the head predicts nothing."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if hasattr(module, "modulation"):
            nn.init.zeros_(module.modulation)
    nn.init.normal_(model.time_projection[1].weight, std=0.02)
    nn.init.zeros_(model.head.head.weight)
    for block in model.blocks:
        look_around(block.self_attn)


def look_around(attention: Any) -> None:
    """Initialise each head of a self-attention to look at one side of its own token, near or far.

    With rotary positions alone a model learns locality late; d'Ascoli et al. 2021, arXiv:2103.10697, show that starting
    with it helps. The rotary embedding turns the pair of channels of frequency w by the angle w p at position p. If the
    bias of k is along (1, 0) and that of q along (cos w d, sin w d), their product is largest where k is d tokens away
    from q, and again after every 2 pi / w tokens. Pairs whose period is too short to tell d from -d are left out.
    """
    channels = attention.head_dim
    axis = 2 * (channels // 6)  # channels of y, and as many of x, after those of the frame
    frequencies = 10000.0 ** (-2 * torch.arange(2) / axis)
    q = attention.q.bias.data.view(attention.num_heads, channels)
    k = attention.k.bias.data.view(attention.num_heads, channels)
    for head, offsets in zip(range(attention.num_heads), itertools.cycle(NEIGHBOURS)):
        for first, offset in zip((channels - 2 * axis, channels - axis), offsets, strict=True):
            for pair, frequency in enumerate(frequencies):
                if frequency * max(map(abs, offsets)) < math.pi:
                    angle = frequency * offset
                    channel = first + 2 * pair
                    k[head, channel] = LOCALITY
                    q[head, channel], q[head, channel + 1] = LOCALITY * torch.cos(angle), LOCALITY * torch.sin(angle)


def draw_batches(
    codec: PictureCodec, config: DictConfig, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield batches without end: latents and noise, both [batch, 16, 1, side, side], and captions [batch, 4, 32].

    What a caption leaves out, which always includes the place of the shape, is chosen to suit the noise (see `pair`).
    """
    data, random = config.data, torch.Generator().manual_seed(seed)
    while True:
        whole = [choose_scene(random).caption for _ in range(config.batch_size)]
        captions = [blur_caption(caption, random, data.left_out) for caption in whole]
        scenes = [choose_scene(random, caption, data.outlined) for caption in captions for _ in range(data.candidates)]
        candidates = codec.encode(draw_pictures(scenes, data.side)).unflatten(0, (len(captions), data.candidates))
        noise = torch.randn(candidates[:, 0].shape, generator=random)
        yield pair(candidates, noise), noise, torch.cat([encode_caption(caption) for caption in captions])


def pair(candidates: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return [batch, ...]: for each noise [batch, ...] the most similar of its candidates [batch, count, ...].

    Noise and picture of a pair may depend on each other as long as each alone keeps its distribution. The paths between
    such pairs cross less, so that few steps can follow them (Pooladian et al. 2023, arXiv:2304.14772). The similarity
    is the cosine around the mean colour, which prefers no size and no background.
    """
    centred = candidates - candidates.mean((0, 1, 3, 4, 5), keepdim=True)
    likeness = (centred * noise.unsqueeze(1)).flatten(2).sum(2) / centred.flatten(2).norm(dim=2)
    return candidates[torch.arange(len(candidates)), likeness.argmax(1)]


def measure_loss(
    model: nn.Module,
    latents: torch.Tensor,
    noise: torch.Tensor,
    captions: torch.Tensor,
    config: DictConfig,
    random: torch.Generator,
) -> torch.Tensor:
    """Return the mean squared error of the predicted velocity, a scalar. Times are drawn from `random`.

    Times in (0, 1) are distributed like those of a sampler after `config.shift`, t = s u / (1 + (s - 1) u) with uniform
    u (Esser et al. 2024, arXiv:2403.03206, equation 23). The model gets t in both of ComfyUI's conventions, each in
    half of a batch: as t (ModelSamplingAuraFlow) and as 1000 t (Wan's own, ModelSamplingSD3).
    """
    count = len(latents)
    u = torch.rand(count, generator=random)
    t = config.shift * u / (1 + (config.shift - 1) * u)
    mixed = torch.lerp(latents, noise, t.view(-1, 1, 1, 1, 1))
    model_times = torch.where(torch.arange(count) % 2 == 0, t, 1000 * t)
    return (model(mixed, model_times, captions) - (noise - latents)).square().mean()


def _optimise(
    model: nn.Module, trained: dict[str, nn.Parameter], codec: PictureCodec, config: DictConfig
) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
    """Run the steps of AdamW; after each one yield its number and the moving average of the trained weights."""
    weights = list(trained.values())
    optimiser = torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _scale_rate(step, config))
    averaged = {name: value.detach().clone() for name, value in trained.items()}
    random = torch.Generator().manual_seed(config.seed)
    began = time.perf_counter()
    batches = draw_batches(codec, config, config.seed)
    for step, batch in enumerate(itertools.islice(batches, config.steps), 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            loss = measure_loss(model, *batch, config, random)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        decay = min(config.average, step / (step + 10))
        for name, value in trained.items():
            averaged[name].lerp_(value.detach(), 1 - decay)
        if step % config.log_every == 0:
            log.info("step %d/%d: loss %.4f, %.0f s", step, config.steps, loss.item(), time.perf_counter() - began)
        yield step, averaged


def _scale_rate(step: int, config: DictConfig) -> float:
    """Return the factor of the learning rate: a linear rise over `warmup` steps, then half a cosine down to 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@contextmanager
def _exchanged(trained: dict[str, nn.Parameter], averaged: dict[str, torch.Tensor]) -> Iterator[None]:
    """Give the model the averaged weights inside the `with` block, and its own ones again after it."""
    original = {name: value.detach().clone() for name, value in trained.items()}
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(averaged[name])
        yield
        for name, value in trained.items():
            value.copy_(original[name])


def _validate(model: nn.Module, codec: PictureCodec, config: DictConfig) -> float:
    """Return the loss on pictures, times and noise that are not used in training."""
    random = torch.Generator().manual_seed(VALIDATION_SEED)
    batches = draw_batches(codec, config, VALIDATION_SEED)
    with torch.no_grad():
        losses = [float(measure_loss(model, *next(batches), config, random)) for _ in range(VALIDATION_BATCHES)]
    log.info("validation loss %.4f", sum(losses) / len(losses))
    return sum(losses) / len(losses)


def _write(model: nn.Module, config: DictConfig, step: int, loss: float) -> None:
    """Write the weights in float16, completely or not at all, with metadata that their shapes do not tell ComfyUI."""
    state = collect_lora(model, config.lora_rank) if config.lora_rank else model.state_dict()
    output = Path(config.output)
    settings: Any = OmegaConf.to_object(config)
    files = {"start": Path(config.start).name if config.start else None, "output": output.name}
    metadata = {
        "config": json.dumps({"transformer": {"text_dim": TEXT_DIM, "num_heads": config.model.num_heads}}),
        "training": json.dumps(settings | files),
        "steps_done": str(step),
        "validation_loss": f"{loss:.5f}",
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial")
    save_file({name: value.detach().half().contiguous() for name, value in state.items()}, partial, metadata)
    partial.replace(output)
    log.info("wrote %s, %.2f MB", output, output.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
