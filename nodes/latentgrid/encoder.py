"""The node that turns a caption of the demo model into its conditioning."""

from __future__ import annotations

from typing import Any

import torch

from .captions import CaptionError, encode_caption, read_caption


class LatentgridEncodeCaption:
    """CONDITIONING from a caption of the demo model's vocabulary."""

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
        """ComfyUI's description of the inputs."""
        tooltip = "[a] [small|large] [COLOUR] [SHAPE] [on COLOUR]; empty leaves everything to the seed."
        return {"required": {"text": ("STRING", {"default": "a red circle", "multiline": True, "tooltip": tooltip})}}

    @classmethod
    def VALIDATE_INPUTS(cls, text: str | None) -> bool | str:
        """True, or which word is wrong; None stands for a text that another node will give."""
        try:
            read_caption(text or "")
        except CaptionError as error:
            return str(error)
        return True

    @classmethod
    def describe_tensors(cls, text: str) -> list[dict[str, Any]]:
        """The shape of the conditioning; raises CaptionError."""
        return [{"shape": list(encode_caption(read_caption(text)).shape), "references": []}]

    def encode(self, text: str) -> tuple[list[tuple[torch.Tensor, dict[str, Any]]]]:
        """The conditioning ``[[tensor, {}]]``, float32 [1, 4, 32]; raises CaptionError."""
        return ([[encode_caption(read_caption(text)), {}]],)
