"""Draw the training pictures, each one flat shape in a colour on a background, by signed distances."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from latentgrid_nodes.captions import COLOURS, SHAPES, SIZES, Caption

PALETTE = {
    "red": (222, 45, 55),
    "orange": (250, 140, 30),
    "yellow": (250, 220, 60),
    "green": (45, 160, 75),
    "blue": (40, 95, 215),
    "purple": (140, 60, 170),
    "white": (245, 245, 240),
    "black": (25, 25, 35),
}
"""The colours in sRGB, 0 to 255."""

RADII = {"small": (0.3, 0.34), "large": (0.4, 0.44)}
"""Half the extent of a shape, as a share of the picture's side."""

PLAY = 0.06
"""How far a shape may be from the centre, as a share of the picture's side.

It is one pixel of 16, which is as much as a model of this size learns to draw well.
"""

SQUARE = 0.86
"""Half the side of a square, as a share of the radius; the other shapes reach 1, or nearly."""

OUTLINE = 1.4
"""The width in pixels of the contour in the `outline` style."""


@dataclass(frozen=True)
class Scene:
    """The content of a picture: what it shows and where.

    Lengths are shares of the picture's side, x to the right and y down.

    Example:
        scene = Scene(Caption("large", "red", "circle", "blue"), x=0.5, y=0.5, radius=0.4)
        draw_pictures([scene], 16)  # [1, 3, 16, 16]
    """

    caption: Caption
    """A caption in which no part is left out."""
    x: float
    y: float
    radius: float
    outlined: bool = False


def choose_scene(random: torch.Generator, caption: Caption | None = None, outlined: bool = False) -> Scene:
    """Return a random scene with what `caption` says. A background never has the colour of its shape."""
    caption = caption or Caption()
    size = caption.size or _choose(SIZES, random)
    shape = caption.shape or _choose(SHAPES, random)
    colour = caption.colour or _choose([c for c in COLOURS if c != caption.background], random)
    background = caption.background or _choose([c for c in COLOURS if c != colour], random)
    low, high = RADII[size]
    radius = low + (high - low) * _draw(random)
    free = min(PLAY, 0.5 - radius - 0.02)
    x, y = (0.5 + free * (2 * _draw(random) - 1) for _ in range(2))
    return Scene(Caption(size, colour, shape, background), x, y, radius, outlined)


def blur_caption(caption: Caption, random: torch.Generator, shares: Mapping[str, float]) -> Caption:
    """Return a caption of which random parts are left out.

    `shares` has the probability that each of the four parts is left out, by name, and that `everything` is.
    """
    if _draw(random) < shares["everything"]:
        return Caption()
    return replace(caption, **{thing: None for thing in vars(caption) if _draw(random) < shares[thing]})


def draw_pictures(scenes: Sequence[Scene], side: int) -> torch.Tensor:
    """Draw scenes as RGB pictures, float32 [count, 3, side, side] in [0, 1], with edges smoothed over one pixel."""
    centres = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    x = x - torch.tensor([scene.x for scene in scenes]).view(-1, 1, 1)
    y = y - torch.tensor([scene.y for scene in scenes]).view(-1, 1, 1)
    radius = torch.tensor([scene.radius for scene in scenes]).view(-1, 1, 1)
    distance = torch.empty(len(scenes), side, side)
    for shape in {scene.caption.shape for scene in scenes}:
        rows = [row for row, scene in enumerate(scenes) if scene.caption.shape == shape]
        distance[rows] = DISTANCES[str(shape)](x[rows] / radius[rows], y[rows] / radius[rows]) * radius[rows]
    distance = distance * side  # in pixels, negative inside
    fill = _cover(distance)
    contour = torch.tensor([scene.outlined for scene in scenes]).view(-1, 1, 1) * _cover(distance - OUTLINE)
    picture = _colours([scene.caption.background for scene in scenes])
    picture = torch.lerp(picture, _colours([_contour_colour(scene.caption) for scene in scenes]), contour.unsqueeze(1))
    return torch.lerp(picture, _colours([scene.caption.colour for scene in scenes]), fill.unsqueeze(1))


def _contour_colour(caption: Caption) -> str:
    """Return white, or black if white would not be seen."""
    return "black" if "white" in (caption.colour, caption.background) else "white"


def _cover(distance: torch.Tensor) -> torch.Tensor:
    return (0.5 - distance).clamp(0, 1)


def _colours(names: Sequence[str | None]) -> torch.Tensor:
    return torch.tensor([PALETTE[str(name)] for name in names]).div(255).view(-1, 3, 1, 1)


# Signed distances for shapes of half extent 1 around the origin, y down; negative inside.
# After the formulas of Inigo Quilez, "2D distance functions", https://iquilezles.org/articles/distfunctions2d/


def _circle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.hypot(x, y) - 1.0


def _ring(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (torch.hypot(x, y) - 0.76).abs() - 0.24


def _box(x: torch.Tensor, y: torch.Tensor, width: float, height: float) -> torch.Tensor:
    dx, dy = x.abs() - width, y.abs() - height
    return torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0)


def _square(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return _box(x, y, SQUARE, SQUARE)


def _cross(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.minimum(_box(x, y, 1.0, 0.32), _box(x, y, 0.32, 1.0))


def _polygon(corners: Sequence[tuple[float, float]]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function for the signed distance to a polygon.

    The distance is that to the nearest side. A point is inside if a ray from it crosses an odd number of sides.
    """

    def measure(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nearest = torch.full_like(x, float("inf"))
        inside = torch.zeros_like(x, dtype=torch.bool)
        for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
            ex, ey = bx - ax, by - ay
            along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
            nearest = torch.minimum(nearest, torch.hypot(x - ax - along * ex, y - ay - along * ey))
            if ey:
                crosses = ((y < ay) != (y < by)) & (x < ax + (y - ay) / ey * ex)
                inside = inside ^ crosses
        return torch.where(inside, -nearest, nearest)

    return measure


def _list_star_corners(points: int, inner: float) -> list[tuple[float, float]]:
    corners = []
    for index in range(2 * points):
        length, angle = (inner if index % 2 else 1.0), math.pi * index / points
        corners.append((length * math.sin(angle), 0.06 - length * math.cos(angle)))
    return corners


def _heart(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the distance to a heart, which is two circles over a tip."""
    lobes = torch.hypot(x.abs() - 0.45, y + 0.35) - 0.55
    return torch.minimum(lobes, _HEART_TIP(x, y))


# The sides leave the lobes where these are tangent to them.
_HEART_TIP = _polygon([(-0.84, 0.04), (0.0, 0.95), (0.84, 0.04), (0.45, -0.36), (0.0, -0.1), (-0.45, -0.36)])

DISTANCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _polygon([(0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)]),
    "star": _polygon(_list_star_corners(5, 0.45)),
    "heart": _heart,
    "ring": _ring,
    "cross": _cross,
}


def _draw(random: torch.Generator) -> float:
    return float(torch.rand((), generator=random))


def _choose(choices: Sequence[str], random: torch.Generator) -> str:
    return choices[int(torch.randint(len(choices), (), generator=random))]
