"""The training commands on a few steps, and that ComfyUI takes what they write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from latentgrid_nodes.captions import Caption
from safetensors import safe_open
from safetensors.torch import load_file

from demo_model.latents import PictureCodec
from demo_model.pictures import choose_scene, draw_pictures
from demo_model.train import pair
from pipeline.config.read import compose_config, read_config

SMALL = ["model.dim=32", "model.ffn_dim=64", "model.num_heads=2", "model.num_layers=2", "batch_size=4", "steps=3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with two models and a LoRA, each of three steps by the documented commands."""
    folder = tmp_path_factory.mktemp("trained")
    outputs = [f"{folder}/models/diffusion_models/{name}.safetensors" for name in ("one", "two")]
    train(folder, "-m", f"output={','.join(outputs)}")
    lora = [f"output={folder}/models/loras/lora.safetensors", f"start={outputs[0]}", "lora_rank=2"]
    train(folder, "--config-name=lora", *lora)
    return folder


def train(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "demo_model.train", *arguments, *SMALL, "hydra.job.chdir=false"]
    folders = [f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_same_seed_gives_the_same_weights(trained: Path):
    one, two = (load_file(trained / f"models/diffusion_models/{name}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert {weight.dtype for weight in one.values()} == {torch.float16}


def test_the_file_says_how_it_was_trained(trained: Path):
    with safe_open(trained / "models/diffusion_models/one.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["config"]) == {"transformer": {"text_dim": 32, "num_heads": 2}}
    assert json.loads(metadata["training"])["steps"] == 3
    assert metadata["steps_done"] == "3"
    assert float(metadata["validation_loss"]) > 0


def test_comfyui_loads_the_model_and_the_lora_changes_it(trained: Path, session):
    session.add_models(trained / "models")

    def sample(*overrides: str) -> torch.Tensor:
        names = ["unet.unet_name=one.safetensors", "lora.lora_name=lora.safetensors", "sampler.steps=1"]
        read = read_config(compose_config([*names, *overrides]))
        outputs = session.run(session.check(read.graph, read.run.outputs)).outputs["sampler"].outputs
        return outputs[0][0]["samples"]

    plain = sample("lora._bypass_=true")
    assert plain.shape == (1, 16, 1, 16, 16)
    assert plain.isfinite().all()
    assert not torch.equal(sample("lora.strength_model=100.0"), plain)


def test_a_lora_holds_three_tensors_for_each_linear_layer_of_the_blocks(trained: Path):
    lora = load_file(trained / "models/loras/lora.safetensors")
    layers = {name.removesuffix(".lora_down.weight") for name in lora if name.endswith(".lora_down.weight")}
    assert len(layers) == 2 * (4 + 4 + 2)  # blocks times self-attention, cross-attention and feed-forward
    assert lora.keys() == {
        f"{layer}.{part}" for layer in layers for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    assert {weight.shape[0] for name, weight in lora.items() if "lora_down" in name} == {2}


def test_noise_is_paired_with_the_picture_it_resembles_and_prefers_no_size(session):
    import comfy.latent_formats

    captions = [Caption(size, "red", "circle", "white") for size in ("small", "large")]
    random = torch.Generator().manual_seed(3)
    scenes = [choose_scene(random, caption) for caption in captions]
    two = PictureCodec(comfy.latent_formats.Wan21()).encode(draw_pictures(scenes, 16))
    noise = torch.randn(400, *two.shape[1:], generator=random)
    chosen = pair(two.expand(400, *two.shape), noise)
    small = (chosen == two[0]).flatten(1).all(1)
    assert small.float().mean() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(pair(two.expand(2, *two.shape), noise[:2] + 9 * (two - two.mean(0))), two)
