"""The node that encodes a caption of the demo model as a conditioning."""

from __future__ import annotations

from typing import Any

import torch

from .captions import CaptionError, encode_caption, read_caption


class LatentgridEncodeCaption:
    """The node that makes a CONDITIONING from a caption of the demo model."""

    DESCRIPTION = (
        "Encodes a caption for the demo model, such as 'a small red circle on blue'. What the caption leaves out is "
        "left to the seed; the empty caption is the unconditional one."
    )
    CATEGORY = "latentgrid"
    RETURN_TYPES = ("CONDITIONING",)
    RETURN_NAMES = ("CONDITIONING",)
    OUTPUT_TOOLTIPS = ("The conditioning, [1, 4, 32]: a token each for size, colour, shape and background.",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs in the form that ComfyUI asks for."""
        tooltip = "[a] [small|large] [COLOUR] [SHAPE] [on COLOUR]; empty leaves everything to the seed."
        return {"required": {"text": ("STRING", {"default": "a red circle", "multiline": True, "tooltip": tooltip})}}

    @classmethod
    def VALIDATE_INPUTS(cls, text: str | None) -> bool | str:
        """Return True, or a message on which word is wrong. A text of None is not known before the run."""
        try:
            read_caption(text or "")
        except CaptionError as error:
            return str(error)
        return True

    @classmethod
    def describe_tensors(cls, text: str) -> list[dict[str, Any]]:
        """Return the shape of the conditioning, which has no reference latents. Raises CaptionError."""
        return [{"shape": list(encode_caption(read_caption(text)).shape), "references": []}]

    def encode(self, text: str) -> tuple[list[tuple[torch.Tensor, dict[str, Any]]]]:
        """Return the conditioning ``[[tensor, {}]]``, float32 [1, 4, 32]. Raises CaptionError."""
        return ([[encode_caption(read_caption(text)), {}]],)
