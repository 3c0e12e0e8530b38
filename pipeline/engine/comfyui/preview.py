"""Draw latents by the RGB factors of their latent format, without loading a VAE.

The factors are those of ComfyUI's live previews: for each latent format a linear map from latent channels to RGB in
[-1, 1], fitted to what the VAE would decode.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def draw_latent(samples: Any, latent_format: Any) -> np.ndarray | None:
    """Draw latents [batch, channels, (frames,) height, width] as one picture, uint8 [height*8, width*8, 3].

    Each latent pixel becomes a square of the format's downscale ratio (8 for most). A batch is tiled into a grid, and
    the first frame of a video is shown. Return None if the format has no factors, or none for this number of channels.
    """
    import torch

    factors = getattr(latent_format, "latent_rgb_factors", None)
    if factors is None or not isinstance(samples, torch.Tensor) or samples.shape[1] != len(factors):
        return None
    latents = latent_format.process_in(samples.detach().to("cpu", torch.float32))
    latents = latents[:, :, 0] if latents.ndim == 5 else latents
    bias = getattr(latent_format, "latent_rgb_factors_bias", None)
    rgb = torch.nn.functional.linear(
        latents.movedim(1, -1), torch.tensor(factors).T, None if bias is None else torch.tensor(bias)
    )
    pixels = ((rgb + 1) / 2).nan_to_num().clamp(0, 1).mul(255).to(torch.uint8).numpy()
    ratio = getattr(latent_format, "spacial_downscale_ratio", 8)
    return tile_pictures(pixels).repeat(ratio, axis=0).repeat(ratio, axis=1)


def tile_pictures(pictures: np.ndarray) -> np.ndarray:
    """Arrange pictures [count, height, width, 3] row by row in a grid that is about square."""
    count, height, width, channels = pictures.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, height, width, channels), pictures.dtype)
    grid[:count] = pictures
    return (
        grid.reshape(rows, columns, height, width, channels)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, channels)
    )
