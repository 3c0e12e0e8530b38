"""A digest of the content of tensors: equal digests mean equal dtype, shape and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any


def digest_tensors(value: Any) -> str | None:
    """Return the sha256 of a tensor, or of lists and mappings of tensors and plain values (CONDITIONING, LATENT).

    The digest covers dtype, shape and bytes of a tensor, so -0.0 differs from 0.0, and NaNs with the same bits are
    equal. The order of a mapping does not matter. Return None if the value contains anything else, because there is no
    general way to compare other objects.

    Example:
        digest_tensors({"samples": torch.zeros(1, 4, 8, 8)})
    """
    digest = hashlib.sha256()
    try:
        _feed(digest, value)
    except (TypeError, RuntimeError):  # torch raises RuntimeError for sparse tensors: they cannot be viewed as bytes
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
