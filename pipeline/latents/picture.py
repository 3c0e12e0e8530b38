"""Draw latents side by side in one picture, each with its difference from the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.engine.comfyui.preview import tile_pictures

if TYPE_CHECKING:
    import torch

SIZE = 256  # pixels of the longer side of a panel
GAP = 8  # pixels between panels
CAPTION = 20  # pixels of the height of a caption


@dataclass(frozen=True)
class Panel:
    """One latent of a row: its caption, its samples, and the file of its preview, if there is one."""

    caption: str
    samples: torch.Tensor
    preview: Path | None = None

    def draw(self) -> Image.Image:
        """Draw the preview, or else the first three channels, stretched to the whole range of brightness."""
        if self.preview:
            with Image.open(self.preview) as image:
                return image.convert("RGB")
        return Image.fromarray(_draw_channels(self.samples))


def draw_comparison(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Draw a row for each kind of latent: the first panel, then each other one and its difference from the first.

    A panel whose shape is not that of the first has no difference.
    """
    drawn = [_draw_row(row) for row in rows]
    width = max(image.width for image in drawn)
    canvas = Image.new("RGB", (width, sum(image.height for image in drawn)), "white")
    top = 0
    for image in drawn:
        canvas.paste(image, (0, top))
        top += image.height
    return canvas


def _draw_row(panels: Sequence[Panel]) -> Image.Image:
    first, *others = panels
    drawn_panels = [(first.caption, first.draw())]
    for panel in others:
        drawn_panels.append((panel.caption, panel.draw()))
        if panel.samples.shape == first.samples.shape:
            drawn_panels.append(_draw_difference(panel.samples, first.samples))
    images = [(caption, _resize(image)) for caption, image in drawn_panels]
    height = max(image.height for _, image in images)
    row = Image.new("RGB", (GAP + len(images) * (SIZE + GAP), height + CAPTION + 2 * GAP), "white")
    draw, font = ImageDraw.Draw(row), ImageFont.load_default(13)
    for place, (caption, image) in enumerate(images):
        left = GAP + place * (SIZE + GAP)
        draw.text((left, GAP), _shorten(caption, font), "black", font)
        row.paste(image, (left, GAP + CAPTION))
    return row


def _draw_difference(samples: torch.Tensor, first: torch.Tensor) -> tuple[str, Image.Image]:
    """Draw the mean difference of all channels and caption it: black is no difference, white the largest one."""
    difference = _flatten_frames(samples.double().sub(first.double()).abs()).mean(dim=1).numpy()
    largest = float(np.nanmax(difference))
    scaled = difference / largest if largest > 0 else difference
    pixels = (np.nan_to_num(scaled, nan=1.0) * 255).astype(np.uint8)
    image = Image.fromarray(tile_pictures(np.repeat(pixels[..., None], 3, axis=3)))
    return (f"difference, white is {largest:.3g}" if largest > 0 else "no difference"), image


def _draw_channels(samples: torch.Tensor) -> np.ndarray:
    channels = _flatten_frames(samples.float())[:, :3].nan_to_num()
    low, high = channels.amin(), channels.amax()
    pixels = ((channels - low) / (high - low).clamp(min=1e-12) * 255).byte().movedim(1, -1).numpy()
    return tile_pictures(pixels if pixels.shape[-1] == 3 else np.repeat(pixels[..., :1], 3, axis=3))


def _flatten_frames(samples: torch.Tensor) -> torch.Tensor:
    """Return samples as [batch, channels, height, width]; of a video, the first frame."""
    return samples[:, :, 0] if samples.ndim == 5 else samples


def _resize(image: Image.Image) -> Image.Image:
    scale = SIZE / max(image.size)
    return image.resize((round(image.width * scale) or 1, round(image.height * scale) or 1), Image.Resampling.NEAREST)


def _shorten(text: str, font: Any) -> str:
    while text and font.getlength(text) > SIZE:
        text = text[:-1]
    return text
