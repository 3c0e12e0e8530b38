"""Seals: what tells whether outputs are still as their node made them, found on the device where they lie.

ComfyUI's nodes must not change their inputs, and some do. An output that is read again, by another node or by a later
run, is compared with its seal before, so that no result depends on who read its inputs earlier.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 1 << 20
"""Words that are weighted at once: what a seal needs beyond the tensor is 8 MB."""


def make_seal(value: Any) -> object:
    """Return what changes with any change of a value: with every bit of tensors, and the structure of containers.

    Anything else (a model, a hook) counts by which object it is; its own state is not looked at.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return ("tensor", value.dtype, tuple(value.shape), _seal_bytes(value))
    if isinstance(value, Mapping):
        return ("mapping", *((repr(key), make_seal(one)) for key, one in value.items()))
    if isinstance(value, list | tuple):
        return ("list", *(make_seal(one) for one in value))
    if isinstance(value, str | bytes | int | float | None):
        return repr(value)
    parts = getattr(value, "tensors", None)  # comfy.nested_tensor.NestedTensor
    return ("object", id(value), *(make_seal(one) for one in (parts if isinstance(parts, list) else ())))


def list_storages(value: Any) -> Iterator[int]:
    """Yield where the memory of the tensors in a value begins: tensors of one memory change together."""
    for tensor in _list_tensors(value):
        try:
            yield tensor.untyped_storage().data_ptr()
        except (RuntimeError, NotImplementedError):  # a sparse tensor has no storage
            continue


def copy_value(value: Any) -> Any:
    """Return containers and tensors of their own; any other object stays the same one."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copy_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        parts = [copy_value(one) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(getattr(value, "tensors", None), list):  # comfy.nested_tensor.NestedTensor
        copied = copy.copy(value)
        copied.tensors = copy_value(value.tensors)
        return copied
    return value


def _list_tensors(value: Any) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _list_tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _list_tensors(one)
    elif isinstance(parts := getattr(value, "tensors", None), list):
        yield from _list_tensors(parts)


def _seal_bytes(tensor: torch.Tensor) -> object:
    """The sha256 of a tensor's bytes, or on another device `sum_words`; None if it has no bytes in order (sparse)."""
    import torch

    try:
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    except (RuntimeError, NotImplementedError):
        return None
    return hashlib.sha256(flat.numpy().data).digest() if flat.device.type == "cpu" else sum_words(flat)


def sum_words(flat: torch.Tensor) -> int:
    """Return the sum of bytes, uint8 [n], as 32-bit words with odd 64-bit weights by place, modulo 2^64.

    It is found on the tensor's device. A change of one word always shows, because an odd weight has an inverse; any
    other change is missed with a chance of about 2^-63.
    """
    import torch

    words = flat.view(torch.int32) if flat.numel() % 4 == 0 and flat.data_ptr() % 4 == 0 else flat
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for place, chunk in enumerate(words.split(CHUNK)):
        weights = _make_weights(flat.device)[: len(chunk)]
        total = total * 6364136223846793005 + (chunk.to(torch.int64) * weights).sum() + place
    return int(total)


@functools.cache
def _make_weights(device: torch.device) -> torch.Tensor:
    """Odd numbers of 64 bits, the same for every seal of this process."""
    import torch

    generator = torch.Generator().manual_seed(0x5EA1)
    numbers = torch.randint(-(2**63), 2**63 - 1, (CHUNK,), generator=generator, dtype=torch.int64)
    return (numbers | 1).to(device)
