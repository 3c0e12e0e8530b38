"""The content of tensors in one text: equal texts mean equal dtype, shape and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any


def digest_tensors(value: Any) -> str | None:
    """The sha256 of a tensor, or of lists and mappings of tensors and plain values (a CONDITIONING, a LATENT).

    A tensor counts with dtype, shape and bytes, so -0.0 is not 0.0, and NaN of the same bits is itself. The order of a
    mapping does not count. None if anything else is in it, of which nobody could say whether it is the same.
    """
    digest = hashlib.sha256()
    try:
        _feed(digest, value)
    except (TypeError, RuntimeError):  # torch says so of sparse tensors, which have no bytes in order
        return None
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        digest.update(f"tensor {value.dtype} {list(value.shape)} ".encode())
        # Through uint8, because numpy has no bfloat16 and no float8.
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)} ".encode())
        for key in sorted(value, key=repr):
            digest.update(repr(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)} ".encode())
        for one in value:
            _feed(digest, one)
    elif isinstance(value, str | int | float | None):
        digest.update(repr(value).encode() + b" ")
    else:
        raise TypeError(type(value).__name__)
