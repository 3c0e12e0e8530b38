"""Encode pictures as latents without a VAE, so that the preview by the latent format's RGB factors is the picture."""

from __future__ import annotations

from typing import Any

import torch


class PictureCodec:
    """A codec between pictures and the latents of a latent format, by the RGB factors of the format.

    The factors map a latent pixel z of C channels to RGB: 2 * rgb - 1 = z F + b, with F [C, 3]. Of all z that give a
    picture the shortest is taken, z = (2 * rgb - 1 - b) F+, with the pseudo-inverse F+. So the latents of pictures
    fill three of the C dimensions, and nothing is lost.

    Example:
        codec = PictureCodec(comfy.latent_formats.Wan21())
        latents = codec.encode(draw_pictures(scenes, 16))  # [count, 16, 1, 16, 16]
    """

    def __init__(self, latent_format: Any):
        """Take the factors of `latent_format`, one of ComfyUI's comfy.latent_formats that has RGB factors."""
        self._factors = torch.tensor(latent_format.latent_rgb_factors, dtype=torch.float32)
        self._bias = torch.tensor(latent_format.latent_rgb_factors_bias, dtype=torch.float32)
        self._inverse = torch.linalg.pinv(self._factors)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return pictures [count, 3, height, width] in [0, 1] as latents [count, C, 1, height, width].

        The latents are as the model sees them, after the latent format's process_in.
        """
        colours = pictures.movedim(1, -1) * 2 - 1 - self._bias
        return (colours @ self._inverse).movedim(-1, 1).unsqueeze(2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the pictures of latents, as the inverse of `encode`. Those of other latents may leave [0, 1]."""
        colours = latents[:, :, 0].movedim(1, -1) @ self._factors + self._bias
        return (colours.movedim(-1, 1) + 1) / 2
