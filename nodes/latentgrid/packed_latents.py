"""Unpack latents from the layout of diffusers, [batch, tokens, 4 * channels], where each token is a patch of 2x2."""

import math

import torch

from .tensor_checks import Fault, describe

PATCH = 2
CHANNELS = 16
"""The channels of the latents that diffusers packs and ComfyUI takes unpacked: those of Qwen-Image and FLUX.1."""

PIXELS = 8 * PATCH
"""Pixels of the picture along a side of a patch; both models' VAEs take 8x8 pixels to one latent pixel."""


def unpack_samples(samples: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, list[str]]:
    """Return `samples`, unpacked if they are packed, and notes for the user on what was done.

    `height` and `width` are those of the picture in pixels, 0 if unknown. Raises Fault for packed samples if they are
    unknown or do not fit.
    """
    if not is_packed(samples):
        return samples, []
    if not (height and width):
        raise Fault(explain_packed(samples))
    unpacked = unpack(samples, height, width)
    caution = "its values are taken as they are, though diffusers' pipelines normalise theirs"
    return unpacked, [f"the packed latent {list(samples.shape)} was unpacked to {list(unpacked.shape)}; {caution}"]


def is_packed(tensor: torch.Tensor) -> bool:
    """Return whether a tensor looks like a packed latent."""
    return not tensor.is_nested and tensor.dim() == 3 and tensor.shape[-1] == CHANNELS * PATCH**2 and len(tensor) > 0


def unpack(packed: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return a packed latent as [batch, 16, height / 8, width / 8], with sides rounded down to whole patches.

    This is what QwenImagePipeline._unpack_latents of diffusers does (and FluxPipeline's), without the dimension of
    frames. The values stay as they are. Raises Fault if a picture of this size has a different number of tokens.
    """
    rows, columns = height // PIXELS, width // PIXELS
    batch, tokens, _ = packed.shape
    if rows * columns != tokens:
        raise Fault(
            f"samples are packed, {tokens} patches of 2x2, but a picture of height={height} and width={width} has "
            f"{rows}x{columns} = {rows * columns}. Give the height and width that they were made for, in pixels."
        )
    patches = packed.reshape(batch, rows, columns, CHANNELS, PATCH, PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, CHANNELS, rows * PATCH, columns * PATCH)


def explain_packed(packed: torch.Tensor) -> str:
    """Return the message for a packed latent whose height and width are not given."""
    side = math.isqrt(packed.shape[1])
    square = f"; a square one has height={side * PIXELS} width={side * PIXELS}" if side**2 == packed.shape[1] else ""
    other = " If it is [channels, height, width], add the batch dimension by tensor.unsqueeze(0)." * (len(packed) > 1)
    layout = f"samples are packed as diffusers packs latents, [batch, tokens, {CHANNELS} channels * 2x2]"
    advice = f"Give this node the height and width of the picture, in pixels, to unpack it{square}.{other}"
    return f"{layout}, got {describe(packed)}. {advice}"
