"""Recognise what a picture of the demo model shows by its nearest template."""

from __future__ import annotations

import itertools

import torch
from latentgrid_nodes.captions import SHAPES, Caption

from demo_model.pictures import OUTLINE, PALETTE, RADII, SQUARE, Scene, draw_pictures

SEEN = 0.15
"""The distance in RGB (each from 0 to 1) up to which a pixel always belongs to the background."""


def read_picture(picture: torch.Tensor) -> Caption | None:
    """Return what an RGB picture, float32 [3, side, side] in [0, 1], shows; None if it shows only a background.

    The background is the colour of the palette nearest to the median of the border. Where the picture differs from it,
    templates of every shape and colour are drawn, plain and outlined. The caption is that of the template with the
    least squared error.

    Example:
        scene = choose_scene(torch.Generator(), Caption(colour="red", shape="circle"))
        read_picture(draw_pictures([scene], 16)[0])  # a Caption with colour "red" and shape "circle"
    """
    border = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], dim=1)
    background = _name_colour(border.median(dim=1).values)
    scenes = _propose(picture, background)
    if not scenes:
        return None
    errors = (draw_pictures(scenes, picture.shape[-1]) - picture).square().mean(dim=(1, 2, 3))
    return scenes[int(errors.argmin())].caption


def _name_colour(colour: torch.Tensor) -> str:
    distances = {name: float((colour * 255 - torch.tensor(rgb)).norm()) for name, rgb in PALETTE.items()}
    return min(distances, key=distances.__getitem__)


def _propose(picture: torch.Tensor, background: str) -> list[Scene]:
    """Return templates that are where the picture differs from its background, give or take a pixel."""
    side = picture.shape[-1]
    difference = (picture - torch.tensor(PALETTE[background]).div(255).view(3, 1, 1)).norm(dim=0)
    rows, columns = torch.nonzero(difference > max(SEEN, float(difference.max()) / 2), as_tuple=True)
    if len(rows) == 0:
        return []
    top, bottom, left, right = (float(edge) for edge in (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))
    extent = max(bottom - top, right - left) / 2
    scenes = []
    for outlined, dx, dy, dr in itertools.product((False, True), (-1, 0, 1), (-1, 0, 1), (-1, -0.5, 0, 0.5)):
        x, y = ((left + right) / 2 + dx) / side, ((top + bottom) / 2 + dy) / side
        for shape in SHAPES:
            reach = SQUARE if shape == "square" else 1.0
            radius = max(1.0, extent + dr - OUTLINE * outlined) / reach / side
            size = "large" if radius > (RADII["small"][1] + RADII["large"][0]) / 2 else "small"
            scenes += [
                Scene(Caption(size, colour, shape, background), x, y, radius, outlined)
                for colour in PALETTE
                if colour != background
            ]
    return scenes
