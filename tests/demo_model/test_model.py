"""The demo model that lies in models/: what it draws, and that every setting of the graph shows."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from latentgrid_nodes.captions import COLOURS, SHAPES, read_caption
from safetensors import safe_open

from demo_model.classifier import read_picture
from pipeline.config.read import compose_config, read_config
from pipeline.engine.comfyui.preview import draw_latent

UNET = ROOT / "models/diffusion_models/demo_shapes.safetensors"
LORA = ROOT / "models/loras/demo_outline.safetensors"
CAPTIONS = [f"a {colour} {shape}" for colour, shape in zip(COLOURS, SHAPES, strict=False)]


@pytest.fixture(scope="module")
def sample(session):
    """Runs the default graph; the picture, float32 [3, height, width] in [0, 1], a pixel for one of the latent."""

    def run(*overrides: str) -> torch.Tensor:
        read = read_config(compose_config(overrides))
        outputs = session.run(session.check(read.graph, read.run.outputs)).outputs["sampler"]
        picture = draw_latent(outputs.outputs[0][0]["samples"], outputs.latent_format)
        assert picture is not None
        return torch.from_numpy(picture[::8, ::8].copy()).movedim(-1, 0).float() / 255

    return run


def test_the_files_are_as_small_as_they_should_be():
    assert UNET.stat().st_size <= 10e6
    assert LORA.stat().st_size <= 1e6


def test_it_has_between_one_and_five_million_parameters():
    with safe_open(UNET, "pt") as file:
        count = sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
    assert 1e6 <= count <= 5e6


def test_the_card_names_the_loss_that_the_files_record():
    card = (ROOT / "models/README.md").read_text(encoding="utf-8")
    for path in (UNET, LORA):
        with safe_open(path, "pt") as file:
            loss = float(file.metadata()["validation_loss"])
        assert re.search(rf"`{path.name}`.*\b{loss:.4f}\b", card)


def test_the_caption_decides_the_picture(sample):
    right = 0
    for seed, text in enumerate(CAPTIONS):
        picture = sample(f"positive.text={text}", f"seed={seed}", "lora._bypass_=true")
        asked, read = read_caption(text), read_picture(picture)
        right += read is not None and (read.colour, read.shape) == (asked.colour, asked.shape)
    assert right >= len(CAPTIONS) - 1


def test_a_background_can_be_asked_for(sample):
    read = read_picture(sample("positive.text=a white circle on green", "lora._bypass_=true"))
    assert read is not None
    assert (read.colour, read.shape, read.background) == ("white", "circle", "green")


@pytest.mark.parametrize(
    "override",
    [
        "seed=43",
        "sampler.steps=2",
        "sampler.cfg=8.0",
        "auraflow.shift=12.0",
        "auraflow._bypass_=true",
        "cfg_norm.strength=0.8",
        "lora.strength_model=0.0",
        "positive.text=a red circle",
        "negative.text=a star",
    ],
)
def test_every_setting_shows(sample, override: str):
    difference = (sample(override) - sample()).abs()
    assert (difference.amax(dim=0) > 0.1).float().mean() > 0.01  # of the pixels


def test_a_strength_of_zero_is_no_lora(sample):
    assert torch.equal(sample("lora.strength_model=0.0"), sample("lora._bypass_=true"))


def test_it_samples_batches_and_other_sizes(sample):
    assert sample("latent.batch_size=2").shape == (3, 16, 32)
    assert sample("latent.width=256").shape == (3, 16, 32)
