"""The training pictures, their latents, and the classifier that reads them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from latentgrid_nodes.captions import COLOURS, SHAPES, SIZES, Caption

from demo_model.classifier import read_picture
from demo_model.latents import PictureCodec
from demo_model.pictures import PALETTE, SQUARE, Scene, blur_caption, choose_scene, draw_pictures

FULL = Caption("large", "red", "heart", "blue")
ALL_LEFT_OUT = {"everything": 0.0, "size": 1.0, "colour": 1.0, "shape": 1.0, "background": 1.0}


def near(picture: torch.Tensor, x: int, y: int, colour: str) -> bool:
    return bool(torch.allclose(picture[:, y, x] * 255, torch.tensor(PALETTE[colour]).float(), atol=1.0))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_of_its_colour_lies_on_its_background(shape: str):
    scene = Scene(Caption("large", "red", shape, "blue"), x=0.5, y=0.5, radius=0.4)
    (picture,) = draw_pictures([scene], 25)
    assert picture.shape == (3, 25, 25)
    assert all(near(picture, x, y, "blue") for x in (0, 24) for y in (0, 24))
    assert near(picture, 12, 12, "blue" if shape == "ring" else "red")
    assert any(near(picture, x, 12, "red") for x in range(25))


@pytest.mark.parametrize(
    ("colour", "background", "contour"),
    [("red", "blue", "white"), ("white", "blue", "black"), ("red", "white", "black"), ("black", "red", "white")],
)
def test_an_outline_can_always_be_seen(colour: str, background: str, contour: str):
    edge = 22 / 64  # between two pixels
    scene = Scene(Caption("large", colour, "square", background), x=0.5, y=0.5, radius=edge / SQUARE, outlined=True)
    (picture,) = draw_pictures([scene], 64)
    row = [name for name in PALETTE if any(near(picture, x, 32, name) for x in range(64))]
    assert sorted(row) == sorted((colour, background, contour))


def test_a_scene_says_what_it_was_asked_and_chooses_the_rest():
    random = torch.Generator().manual_seed(0)
    scenes = [choose_scene(random, Caption(colour="red", shape="star")) for _ in range(200)]
    assert {(scene.caption.colour, scene.caption.shape) for scene in scenes} == {("red", "star")}
    assert {scene.caption.size for scene in scenes} == set(SIZES)
    assert {scene.caption.background for scene in scenes} == set(COLOURS) - {"red"}
    assert all(scene.radius < min(scene.x, scene.y, 1 - scene.x, 1 - scene.y) for scene in scenes)  # it lies inside


def test_a_blurred_caption_says_less():
    random = torch.Generator().manual_seed(0)
    assert blur_caption(FULL, random, {**ALL_LEFT_OUT, "colour": 0.0}) == Caption(colour="red")
    assert blur_caption(FULL, random, {**dict.fromkeys(ALL_LEFT_OUT, 0.0), "everything": 1.0}) == Caption()
    assert blur_caption(FULL, random, dict.fromkeys(ALL_LEFT_OUT, 0.0)) == FULL


def test_the_classifier_reads_what_was_drawn():
    random = torch.Generator().manual_seed(1)
    for shape, outlined in itertools.product(SHAPES, (False, True)):
        scene = choose_scene(random, Caption(shape=shape), outlined)
        (picture,) = draw_pictures([scene], 24)
        read = read_picture((picture + 0.03 * torch.randn(picture.shape, generator=random)).clamp(0, 1))
        assert read is not None
        assert (read.colour, read.shape, read.background) == (scene.caption.colour, shape, scene.caption.background)


@pytest.mark.parametrize("colour", COLOURS)
def test_the_classifier_sees_nothing_in_a_background(colour: str):
    assert read_picture((torch.tensor(PALETTE[colour]) / 255).view(3, 1, 1).expand(3, 24, 24)) is None


def test_a_latent_previews_as_its_picture(session):
    import comfy.latent_formats

    from pipeline.engine.comfyui.preview import draw_latent

    latent_format = comfy.latent_formats.Wan21()
    codec = PictureCodec(latent_format)
    pictures = draw_pictures([choose_scene(torch.Generator().manual_seed(2))], 24)
    latents = codec.encode(pictures)
    assert latents.shape == (1, 16, 1, 24, 24)
    torch.testing.assert_close(codec.decode(latents), pictures)
    preview = draw_latent(latent_format.process_out(latents), latent_format)[4::8, 4::8]
    drawn = (pictures[0].movedim(0, -1) * 255).numpy()
    assert np.abs(preview - drawn).max() <= 1.0
