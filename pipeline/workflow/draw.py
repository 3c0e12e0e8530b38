"""Draw the picture of a graph as SVG text or as an image."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

from pipeline.workflow.picture import DOT, PAPER, Curve, Dot, Picture, Rectangle, Shape, Text

SCALE = 2  # pixels of the image per pixel of the picture, so that the image is sharp on screens of high resolution
FONTS = "Aileron, Inter, 'Helvetica Neue', Arial, sans-serif"
THICK, DASH = 2.0, 5.0
PIECES = 24  # straight pieces of a curve in the image

Point = tuple[float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.cache
def load_font(size: float) -> Font:
    """Return Pillow's own font in a size."""
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=4096)
def measure_text(text: str, size: int) -> float:
    """Return the width of a text in Pillow's own font, in pixels of the picture."""
    return load_font(size).getlength(text)


def write_svg(picture: Picture) -> str:
    """Return the picture as an SVG document."""
    size = f'width="{picture.width:.0f}" height="{picture.height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {picture.width:.0f} {picture.height:.0f}" '
        f'font-family="{FONTS}">',
        f'<rect width="100%" height="100%" fill="{PAPER}"/>',
        *map(_write_shape, picture.shapes),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _write_shape(shape: Shape) -> str:
    match shape:
        case Rectangle():
            place = f'x="{shape.left:.1f}" y="{shape.top:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}"'
            line = f' stroke="{shape.line}"{_write_dash(shape.dashed)}' if shape.line else ""
            return f'<rect {place} rx="{shape.round:.0f}" fill="{shape.fill}"{line}/>'
        case Text():
            place = f'x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size}" fill="{shape.fill}"'
            anchor = ' text-anchor="end"' if shape.anchor == "r" else ""
            return f'<text {place} dominant-baseline="central"{anchor}>{escape(shape.text)}</text>'
        case Dot():
            return f'<circle cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{DOT:.0f}" fill="{shape.fill}"/>'
        case Curve():
            path = f"M{shape.points[0][0]:.1f} {shape.points[0][1]:.1f} " + " ".join(
                "C" + ", ".join(f"{x:.1f} {y:.1f}" for x, y in points[1:]) for points in _list_beziers(shape)
            )
            line = f'stroke="{shape.line}" stroke-width="{THICK:.0f}"{_write_dash(shape.dashed)}'
            return f'<path d="{path}" fill="none" {line}/>'


def _write_dash(dashed: bool) -> str:
    return f' stroke-dasharray="{DASH:.0f}"' if dashed else ""


def _list_beziers(curve: Curve) -> Iterator[tuple[Point, Point, Point, Point]]:
    """Yield cubic Bezier curves from point to point that are horizontal at their ends."""
    for (x0, y0), (x1, y1) in itertools.pairwise(curve.points):
        middle = (x0 + x1) / 2
        yield (x0, y0), (middle, y0), (middle, y1), (x1, y1)


def paint(picture: Picture) -> Image.Image:
    """Return the picture as an RGB image of `SCALE` times its size."""
    image = Image.new("RGB", (round(picture.width * SCALE), round(picture.height * SCALE)), PAPER)
    pen = ImageDraw.Draw(image)
    for shape in picture.shapes:
        _paint_shape(pen, shape)
    return image


def _paint_shape(pen: ImageDraw.ImageDraw, shape: Shape) -> None:
    match shape:
        case Rectangle():
            box = _scale(shape.left, shape.top, shape.left + shape.width, shape.top + shape.height)
            pen.rounded_rectangle(box, shape.round * SCALE, shape.fill, shape.line or None, SCALE)
        case Text():
            font = load_font(shape.size * SCALE)
            pen.text((shape.x * SCALE, shape.y * SCALE), shape.text, shape.fill, font, anchor=f"{shape.anchor}m")
        case Dot():
            pen.ellipse(_scale(shape.x - DOT, shape.y - DOT, shape.x + DOT, shape.y + DOT), shape.fill)
        case Curve():
            for points in _list_beziers(shape):
                line = [_scale(*_find_point(points, step / PIECES)) for step in range(PIECES + 1)]
                if shape.dashed:
                    for index in range(0, PIECES, 2):
                        pen.line(line[index : index + 2], shape.line, round(THICK * SCALE))
                else:
                    pen.line(line, shape.line, round(THICK * SCALE), joint="curve")


def _find_point(points: tuple[Point, Point, Point, Point], part: float) -> Point:
    """Return the point of a cubic Bezier curve at the parameter `part`, from 0 to 1."""
    rest = 1 - part
    weights = rest**3, 3 * rest**2 * part, 3 * rest * part**2, part**3
    x, y = (sum(weight * point[axis] for weight, point in zip(weights, points, strict=True)) for axis in (0, 1))
    return x, y


def _scale(*places: float) -> tuple[float, ...]:
    return tuple(place * SCALE for place in places)
