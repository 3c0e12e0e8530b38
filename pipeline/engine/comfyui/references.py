"""Give latents in the metadata of conditionings the dimensions that the model's latents have.

comfy.sample.fix_empty_latent_channels does that for the latent that is sampled: where the model has frames and the
latent has none, it becomes one frame. Reference latents do not pass through it, and the latent format's means
[1, channels, 1, 1, 1] broadcast a 4-D one to as many frames as it has channels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

# Keys of the metadata that have a list of latents, and keys that have one latent.
LISTS = ("context_latents", "reference_latents")
SINGLE = ("concat_latent_image", "ref_latent")


def add_missing_frames(name: str, values: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the inputs `values` of the node `name` (lists of values), with conditionings that fit the model.

    If the model's latent format has three dimensions, 4-D latents become 5-D, which is logged. Nothing is changed in
    place.
    """
    if not any(_has_frames(one) for one in values.get("model", [])):
        return dict(values)
    fixed = {key: [_fix_conditioning(one) for one in many] for key, many in values.items()}
    for key in (key for key, many in values.items() if any(a is not b for a, b in zip(many, fixed[key], strict=True))):
        log.warning("%s.%s: latents in its metadata were 4-D; made 5-D, of one frame, as the model's are", name, key)
    return fixed


def _has_frames(model: Any) -> bool:
    latent_format = getattr(getattr(model, "model", None), "latent_format", None)
    return getattr(latent_format, "latent_dimensions", 2) == 3


def _fix_conditioning(value: Any) -> Any:
    """Return a conditioning with its latents fixed; return any other value, or one that needs no change, itself."""
    if not (isinstance(value, list) and value and all(_is_pair(pair) for pair in value)):
        return value
    pairs = [[pair[0], _fix_metadata(pair[1]), *pair[2:]] for pair in value]
    return pairs if any(new[1] is not old[1] for new, old in zip(pairs, value, strict=True)) else value


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, Sequence) and len(pair) >= 2 and isinstance(pair[1], Mapping)


def _fix_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    changed = {
        key: [_add_frame(one) for one in metadata[key]]
        for key in LISTS
        if isinstance(metadata.get(key), list | tuple) and any(_lacks_frame(one) for one in metadata[key])
    }
    changed |= {key: _add_frame(metadata[key]) for key in SINGLE if _lacks_frame(metadata.get(key))}
    return {**metadata, **changed} if changed else metadata


def _lacks_frame(latent: Any) -> bool:
    return getattr(latent, "ndim", None) == 4 and hasattr(latent, "unsqueeze")


def _add_frame(latent: Any) -> Any:
    return latent.unsqueeze(2) if _lacks_frame(latent) else latent
