"""Check the metadata of a conditioning, and the entries of a latent beside its samples.

A value that ComfyUI would misunderstand is converted if it can have only one meaning, and refused otherwise. The keys
are those of ComfyUI 0.30: of `extra_conds` in comfy/model_base.py, of comfy/samplers.py, and those that its nodes set
by `conditioning_set_values`.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from .tensor_checks import Fault, describe, describe_names

REFERENCE_METHODS = ("offset", "index", "index_timestep_zero", "negative_index", "uxo")
"""The methods that comfy/ldm/qwen_image/model.py, flux/model.py and krea2/model.py know; others count as "offset"."""

OBJECTS = ("control", "gligen", "hooks", "model_conds")
LATENT_LISTS = ("context_latents", "reference_latents")
LATENTS = ("concat_latent_image", "ref_latent")
MASKS = ("concat_mask", "mask")
PERCENTS = ("clip_end_percent", "clip_start_percent", "end_percent", "start_percent")
NUMBERS = (
    *("aesthetic_score", "aspect_ratio", "audio_inject_scale", "augmentation_level", "azimuth", "concat_mask_index"),
    *("crop_h", "crop_w", "elevation", "fps", "frame_rate", "guidance", "height", "lyrics_strength", "mask_strength"),
    *("motion_bucket_id", "noise_augmentation", "seconds_start", "seconds_total", "strength", "target_height"),
    *("target_width", "unclip_noise_augment_merge", "width"),
)
OTHERS = (
    *("attention_mask_img_shape", "attention_mask_mt5xl", "audio_codes", "audio_embed", "camera_conditions"),
    *("clip_vision_output", "clip_vision_output_ref", "clip_vision_outputs", "concat_image", "condition"),
    *("conditioning_byt5small", "conditioning_llama3", "conditioning_lyrics", "conditioning_mt5xl", "control_video"),
    *("control_apply_to_uncond", "cross_attn_controlnet", "default", "degrade_sigma", "driving_mask_28ch"),
    *("face_video_pixels", "guide_attention_entries", "guiding_frame_index", "keyframe_idxs", "latent_shapes"),
    *("lq_latent", "minimax_audio_cond_noise_aug", "minimax_frame_count", "minimax_keyframes", "minimax_refs"),
    *("minimax_token_tags", "minimax_visual_cond_noise_aug", "noise_concat", "ofs", "pooled_output_controlnet"),
    *("pose_video_latent", "prompt_type", "ref_audio", "ref_mask_28ch", "ref_mask_flag", "reference_motion"),
    *("reference_audio_timbre_latents", "reference_latents_text_embeds", "set_area_to_bounds", "stable_cascade_prior"),
    *("t5xxl_ids", "t5xxl_weights", "text_input_ids", "time_conditioning", "time_dim_concat", "time_dim_replace"),
    *("timestep_end", "timestep_start", "unclip_conditioning", "unprocessed_ltxav_embeds", "vace_frames", "vace_mask"),
    "vace_strength",
)


def check_metadata(cond: torch.Tensor, metadata: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Return the metadata of the conditioning `cond` as ComfyUI's models should get it, and notes on what was changed.

    The notes also say which keys no model reads. `where` names the metadata. Raises Fault with all mistakes.
    """
    rules = {
        **dict.fromkeys(LATENT_LISTS, _check_latents),
        **dict.fromkeys(LATENTS, _check_latent),
        **dict.fromkeys(MASKS, _check_mask),
        **dict.fromkeys(NUMBERS, _check_number),
        **dict.fromkeys(PERCENTS, _check_percent),
        **dict.fromkeys(OBJECTS, _check_object),
        "area": _check_area,
        "attention_mask": _skip_bias(_check_attention_mask, metadata),
        "pooled_output": _check_pooled,
        "reference_latents_method": _check_method,
    }
    checked, notes = _apply(rules, cond, metadata, where)
    unknown = [key for key in metadata if key not in rules and key not in OTHERS]
    if unknown:
        names = describe_names(unknown, "key")
        notes.append(f"{where} has {names} that no model of ComfyUI 0.30 reads; passed on as they are")
    return checked, notes


def check_entries(latent: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a latent whose entries ComfyUI's samplers understand, and notes on what was changed.

    The entries are `batch_index` and `noise_mask`. Raises Fault with all mistakes.
    """
    return _apply({"batch_index": _check_batch_index, "noise_mask": _check_mask}, latent["samples"], latent, "latent")


Rule = Callable[[Any, str, torch.Tensor], tuple[Any, str]]
"""`rule(value, where, tensor)` returns the value to use and a note, empty if the value is unchanged. Raises Fault."""


def _apply(
    rules: dict[str, Rule], tensor: torch.Tensor, entries: dict[str, Any], where: str
) -> tuple[dict[str, Any], list[str]]:
    checked, notes, faults = dict(entries), [], []
    for key, value in entries.items():
        if key not in rules or (value is None and key not in OBJECTS):
            continue
        place = f"{where}[{key!r}]"
        try:
            checked[key], note = rules[key](value, place, tensor)
        except Fault as fault:
            faults.append(str(fault))
        else:
            notes += [f"{place} {note}"] * bool(note)
    if faults:
        raise Fault("\n  ".join(faults))
    return checked, notes


def _skip_bias(rule: Rule, metadata: dict[str, Any]) -> Rule:
    """Return `rule`, or one that accepts every mask if there is an `attention_mask_img_shape`.

    That comes with the masks of style models, which are meant to be added to the logits (nodes.py).
    """
    return (lambda value, where, tensor: (value, "")) if "attention_mask_img_shape" in metadata else rule


def _check_attention_mask(mask: Any, where: str, cond: torch.Tensor) -> tuple[Any, str]:
    """Return a mask like those of ComfyUI's text encoders: int64, 1 for a token and 0 for padding.

    comfy/model_base.py casts every other dtype to the model's, and models add a floating point mask to their logits.
    """
    batch, tokens = cond.shape[:2]
    right = f"Right is an int64 tensor [batch, tokens] of 0 and 1, here {[batch, tokens]}."
    if not isinstance(mask, torch.Tensor) or mask.dim() < 2 or mask.is_complex():
        raise Fault(f"{where} must be a tensor [batch, tokens], got {describe(mask)}. {right}")
    if mask.shape[-1] != tokens:
        raise Fault(f"{where} is of {mask.shape[-1]} tokens, but the conditioning has {tokens}. {right}")
    if mask.shape[0] not in (1, batch):
        raise Fault(f"{where} is a batch of {mask.shape[0]}, but the conditioning is one of {batch}. {right}")
    values = mask.float() if mask.element_size() == 1 else mask
    binary = bool(((values == 0) | (values == 1)).all())
    if mask.is_floating_point():
        if not binary:
            return mask, "has other values than 0 and 1, so models add it to their logits"
        if not values.any():  # added, it changes nothing; as a mask it would hide every token
            return mask, ""
    elif not binary:
        raise Fault(f"{where} has values from {int(mask.min())} to {int(mask.max())}. {right}")
    if mask.dtype in (torch.int32, torch.int64):
        return mask, ""
    note = f"of 0 and 1 was {str(mask.dtype).removeprefix('torch.')}, which models add to their logits; made int64"
    return mask.to(torch.int64), note


def _check_method(method: Any, where: str, cond: torch.Tensor) -> tuple[Any, str]:
    if isinstance(method, str) and ("uxo" in method or "uso" in method) and method != "uxo":
        return "uxo", f"is {method!r}; made 'uxo', as ComfyUI's FluxKontextMultiReferenceLatentMethod does"
    if method not in REFERENCE_METHODS:
        shown = repr(method)[:60] if isinstance(method, str) else describe(method)
        raise Fault(f"{where} must be one of {', '.join(REFERENCE_METHODS)}, got {shown}.")
    return method, ""


def _check_latents(latents: Any, where: str, cond: torch.Tensor) -> tuple[Any, str]:
    note = ""
    if isinstance(latents, torch.Tensor):  # the only form that a safetensors file can have
        latents, note = [latents], "is a tensor where ComfyUI reads a list; made a list of it"
    if not isinstance(latents, (list, tuple)):
        raise Fault(f"{where} must be a list of latents, got {describe(latents)}.")
    for i, latent in enumerate(latents):
        _check_latent(latent, f"{where}[{i}]", cond)
    return list(latents), note


def _check_latent(latent: Any, where: str, cond: torch.Tensor) -> tuple[Any, str]:
    if not (isinstance(latent, torch.Tensor) and latent.is_floating_point() and latent.dim() in (4, 5)):
        right = "[batch, channels, height, width] or [batch, channels, frames, height, width]"
        raise Fault(f"{where} must be a float tensor {right}, got {describe(latent)}.")
    _check_batch(latent, where, cond)
    return latent, ""


def _check_batch(tensor: torch.Tensor, where: str, cond: torch.Tensor) -> None:
    """Raise Fault unless the batches are equal or one of them is 1.

    ComfyUI cuts and repeats both to the batch of the latent (repeat_to_batch_size), so parts of one would be lost.
    """
    if not len(tensor) or (1 not in (len(tensor), len(cond)) and len(tensor) != len(cond)):
        raise Fault(f"{where} is a batch of {len(tensor)}, but the conditioning is one of {len(cond)}.")


def _check_pooled(pooled: Any, where: str, cond: torch.Tensor) -> tuple[Any, str]:
    if not (isinstance(pooled, torch.Tensor) and pooled.is_floating_point() and pooled.dim() >= 2):
        raise Fault(f"{where} must be a float tensor [batch, channels], got {describe(pooled)}.")
    _check_batch(pooled, where, cond)
    return pooled, ""


def _check_mask(mask: Any, where: str, tensor: torch.Tensor) -> tuple[Any, str]:
    """Return a mask as floating point: ComfyUI resizes masks by interpolation, which torch has only for floats."""
    if not isinstance(mask, torch.Tensor) or mask.dim() < 2 or mask.is_complex():
        raise Fault(f"{where} must be a float tensor [batch, height, width], got {describe(mask)}.")
    if mask.is_floating_point():
        return mask, ""
    if mask.numel() and (int(mask.min()) < 0 or int(mask.max()) > 1):
        raise Fault(f"{where} has values from {int(mask.min())} to {int(mask.max())}. Right are floats from 0 to 1.")
    return mask.float(), f"was {str(mask.dtype).removeprefix('torch.')}; made float32"


def _check_number(value: Any, where: str, tensor: torch.Tensor) -> tuple[Any, str]:
    note = ""
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        value, note = value.item(), "is a tensor of one value; made a number"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Fault(f"{where} must be a number, got {value if isinstance(value, (bool, float)) else describe(value)}.")
    return value, note


def _check_percent(value: Any, where: str, tensor: torch.Tensor) -> tuple[Any, str]:
    value, note = _check_number(value, where, tensor)
    if not 0 <= value <= 1:
        raise Fault(f"{where} must lie from 0 to 1, got {value}.")
    return value, note


def _check_area(area: Any, where: str, tensor: torch.Tensor) -> tuple[Any, str]:
    numbers = list(area) if isinstance(area, (list, tuple)) else []
    if numbers[:1] == ["percentage"]:
        numbers = numbers[1:]
    if not numbers or len(numbers) % 2 or not all(type(one) in (int, float) for one in numbers):
        right = '(height, width, y, x) or ("percentage", height, width, y, x)'
        raise Fault(f"{where} must be {right}, got {describe(area)}.")
    return tuple(area), ""


def _check_object(value: Any, where: str, tensor: torch.Tensor) -> tuple[Any, str]:
    raise Fault(f"{where} is an object of ComfyUI, which no file can hold, got {describe(value)}. Leave it out.")


def _check_batch_index(index: Any, where: str, samples: torch.Tensor) -> tuple[Any, str]:
    """Return the numbers of the latents in their batch as a list.

    comfy.sample.prepare_noise draws noise up to the largest of these numbers, and gives each latent that of its number.
    """
    note = ""
    right = f"a list of {len(samples)} whole numbers from 0 on, one for each latent of the batch"
    if isinstance(index, torch.Tensor) and index.dim() == 1 and index.dtype in (torch.int32, torch.int64):
        index, note = index.tolist(), "is a tensor; made a list"
    if not isinstance(index, (list, tuple)) or not all(type(one) is int and one >= 0 for one in index):
        raise Fault(f"{where} must be {right}, got {index if isinstance(index, list) else describe(index)}.")
    if len(index) != len(samples):
        raise Fault(f"{where} must be {right}, got {len(index)} numbers.")
    return list(index), note
