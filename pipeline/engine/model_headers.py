"""Read what the headers of safetensors files say of models, without reading a tensor.

A header is the length of a JSON text in 8 bytes and the text: dtype, shape and offsets of each tensor by its name.
"""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.file_state import FileState

SUFFIXES = (".safetensors", ".sft")
MOST = 100_000_000  # bytes of a header, the limit of the safetensors library
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
"""What comes before the names of a diffusion model's tensors in checkpoints, and in files of the model alone."""

Shapes = Mapping[str, Sequence[int]]


class ModelFileDamage(ValueError):
    """A model file is damaged or no model; the message says what it is instead."""


@dataclass(frozen=True)
class ModelFacts:
    """What a diffusion model takes; None where it is not known.

    latent_channels, text_channels: the numbers of channels of its latents and its conditionings.
    weights: the shapes of its weights by name, without prefix; None where ComfyUI's names for the keys of LoRAs do not
    follow one rule.
    """

    latent_channels: int | None = None
    text_channels: int | None = None
    weights: Shapes | None = None


def read_shapes(path: str) -> Shapes:
    """Return the shapes of the floating-point tensors of a safetensors file by name. Raises ModelFileDamage, OSError.

    Tensors of other dtypes are left out, because a quantized one (nvfp4, int8) has the shape of its packed form.
    """
    return _read_shapes(FileState.of(path))


def find_page(path: str) -> str | None:
    """Return what a file is if a download left something other than a model, else None. Raises OSError."""
    with Path(path).open("rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "is an HTML page, not a model: the download gave a page to read or to log in. Fetch the file again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the model itself. Run `git lfs pull`"
    return "is empty (0 bytes). Fetch the file again" if not head and not Path(path).stat().st_size else None


@functools.lru_cache(maxsize=256)
def _read_shapes(state: FileState) -> Shapes:
    advice = "It is damaged, cut short or of another format. Fetch the file again"
    with Path(state.path).open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MOST + 1
        if length > MOST or length + 8 > state.size:
            raise ModelFileDamage(f"is not a safetensors file, its header of {length} bytes cannot be. {advice}")
        text = file.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items() if _is_float(entry["dtype"])}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise ModelFileDamage(f"is not a safetensors file, its header cannot be read. {advice}") from None
    if end > state.size:
        raise ModelFileDamage(f"is cut short: it has {state.size} of {end} bytes. Fetch the file again")
    return shapes


def _is_float(dtype: str) -> bool:
    return dtype in ("F64", "F32", "F16", "BF16") or dtype.startswith("F8_")


def describe_model(shapes: Shapes) -> ModelFacts:
    """Return what a diffusion model with these tensors takes; all fields are None for an unknown architecture.

    Architectures are recognized by the tensors that ComfyUI's comfy/model_detection.py looks for.
    """
    for prefix in PREFIXES:
        own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        for describe in (_describe_qwen_image, _describe_wan, _describe_flux, _describe_sd):
            if facts := describe(own):
                return facts
    return ModelFacts()


def _describe_qwen_image(shapes: Shapes) -> ModelFacts | None:
    if not {"txt_norm.weight", "txt_in.weight", "img_in.weight", "proj_out.weight"} <= shapes.keys():
        return None
    if shapes["proj_out.weight"][0] != 64 or len(shapes["txt_norm.weight"]) != 1:  # Mage-Flow has 128
        return None
    if "transformer_blocks.0.attn.add_q_proj.weight" not in shapes:
        return None
    return ModelFacts(shapes["proj_out.weight"][0] // 4, shapes["txt_norm.weight"][0], shapes)


def _describe_wan(shapes: Shapes) -> ModelFacts | None:
    if (
        not {"head.modulation", "head.head.weight", "patch_embedding.weight", "text_embedding.0.weight"}
        <= shapes.keys()
    ):
        return None
    # The channels of the output, because image-to-video models take more input channels than the latent has.
    patch = math.prod(shapes["patch_embedding.weight"][2:])
    return ModelFacts(shapes["head.head.weight"][0] // patch, shapes["text_embedding.0.weight"][1], shapes)


def _describe_flux(shapes: Shapes) -> ModelFacts | None:
    blocks = {"double_blocks.0.img_attn.norm.key_norm.scale", "double_blocks.0.img_attn.norm.key_norm.weight"}
    if not {"img_in.weight", "txt_in.weight"} <= shapes.keys() or not blocks & shapes.keys():
        return None
    output_channels = shapes.get("final_layer.linear.weight", (0,))[0]
    return ModelFacts(16 if output_channels == 64 else None, shapes["txt_in.weight"][1])


def _describe_sd(shapes: Shapes) -> ModelFacts | None:
    if not {"input_blocks.0.0.weight", "out.2.weight"} <= shapes.keys():
        return None
    widths = {shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")}
    return ModelFacts(shapes["out.2.weight"][0], widths.pop() if len(widths) == 1 else None)


def count_fitting(lora: Shapes, weights: Shapes) -> int:
    """Return how many tensors of a LoRA, without its scales, fit a model with these weights by name and shape.

    The names are those of comfy/lora.py and lora_convert.py for Qwen-Image and Wan, in all their spellings. A name that
    fits in one spelling counts, so 0 reliably means that the LoRA is for another architecture.
    """
    known = {_spell(name.removesuffix(".weight")): shape for name, shape in weights.items()}
    longest = max((name.count("_") for name in known), default=0)
    return sum(_fits(name, shape, known, longest) for name, shape in lora.items())


# What may come before the name of a weight in the key of a LoRA, with underscores for dots.
BEGINNINGS = (
    *("base_model_model_", "unet_", "lora_unet_", "lora_transformer_", "lycoris_", "transformer_", "diffusion_model_"),
    *("model_diffusion_model_", "_"),
)


def _spell(name: str) -> str:
    return name.replace(".", "_")


def _fits(name: str, shape: Sequence[int], known: Shapes, longest: int) -> bool:
    if name.endswith((".alpha", ".dora_scale")):  # scales fit weights of any shape
        return False
    spelling: str | None = _spell(name)
    while spelling is not None:
        # The longest name of a weight at the beginning of the key counts, else the key is tried without its prefix.
        words = spelling.split("_")
        for count in range(min(len(words), longest + 1), 0, -1):
            target = known.get("_".join(words[:count]))
            if target is not None:
                return _fits_shape(words[count:], shape, target)
        beginning = next((one for one in BEGINNINGS if spelling.startswith(one)), None)
        spelling = None if beginning is None else spelling.removeprefix(beginning)
    return False


def _fits_shape(rest: Sequence[str], shape: Sequence[int], target: Sequence[int]) -> bool:
    """Return whether a LoRA's half fits the side of the weight; for other forms (LoKr, ...) the name is enough."""
    if len(shape) != 2 or len(target) != 2:
        return True
    kind = "_".join(rest)
    if kind in ("lora_down_weight", "lora_A_weight", "lora_A_default_weight", "lora_A"):
        return shape[1] == target[1]
    if kind in ("lora_up_weight", "lora_B_weight", "lora_B_default_weight", "lora_B"):
        return shape[0] == target[0]
    return True
