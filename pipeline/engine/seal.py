"""Seals, which show whether outputs are still as their node made them, computed on the device of the outputs.

ComfyUI's nodes must not change their inputs, but some do. An output that another node or a later run reads again is
compared with its seal first, so that no result depends on which nodes have read its inputs before.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 1 << 20
"""Words that are weighted at once, so that a seal needs 8 MB beyond the tensor."""


def make_seal(value: Any) -> object:
    """Return a seal, which differs after any change to the tensors, plain values or containers in a value.

    Any other object (a model, a hook) counts by its id, and its state is not looked at; nor is a container that
    contains itself.

    Example:
        seal = make_seal(outputs)
        outputs[0][0].add_(1)
        seal == make_seal(outputs)  # False
    """
    try:
        return _seal(value)
    except RecursionError:
        return ("object", id(value))


def _seal(value: Any) -> object:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return ("tensor", value.dtype, tuple(value.shape), _seal_bytes(value))
    if isinstance(value, np.ndarray):
        content = _seal(value.tolist()) if value.dtype.hasobject else hashlib.sha256(value.tobytes()).digest()
        return ("array", str(value.dtype), value.shape, content)
    if isinstance(value, Mapping):
        return ("mapping", *((repr(key), _seal(one)) for key, one in value.items()))
    if isinstance(value, list | tuple):
        return ("list", *(_seal(one) for one in value))
    if isinstance(value, str | bytes | int | float | None):
        return repr(value)
    return ("object", id(value), *(_seal(one) for one in _list_parts(value)))


def list_storages(value: Any) -> Iterator[int]:
    """Yield where the memory of the tensors and arrays in a value begins, and the ids of its lists and mappings.

    Two values that have one of these in common change together.
    """
    yield from _list_storages(value, set())


def _list_storages(value: Any, seen: set[int]) -> Iterator[int]:
    import numpy as np
    import torch

    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        with contextlib.suppress(RuntimeError, NotImplementedError):  # a sparse tensor has no storage
            yield value.untyped_storage().data_ptr()
    elif isinstance(value, np.ndarray):
        yield (value.base if isinstance(value.base, np.ndarray) else value).ctypes.data
    elif isinstance(value, Mapping):
        yield id(value)
        for one in value.values():
            yield from _list_storages(one, seen)
    elif isinstance(value, list | tuple):
        if isinstance(value, list):
            yield id(value)
        for one in value:
            yield from _list_storages(one, seen)
    else:
        for one in _list_parts(value):
            yield from _list_storages(one, seen)


def copy_value(value: Any) -> Any:
    """Return a copy of the containers, tensors and arrays in a value; any other object stays the same.

    An object that is in several places of the value is one object in the copy. Subclasses of list and dict are
    retained.
    """
    return _copy(value, {})


def _copy(value: Any, copies: dict[int, Any]) -> Any:
    import numpy as np
    import torch

    if id(value) in copies:
        return copies[id(value)]
    result = value
    if isinstance(value, torch.Tensor):
        result = value.clone()
    elif isinstance(value, np.ndarray):
        result = value.copy()
    elif isinstance(value, list | dict):
        result = copies[id(value)] = copy.copy(value)
        for key, one in list(value.items() if isinstance(value, dict) else enumerate(value)):
            result[key] = _copy(one, copies)
    elif isinstance(value, tuple):
        parts = [_copy(one, copies) for one in value]
        result = type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)  # SEGS has named tuples
    elif parts := _list_parts(value):
        result = copy.copy(value)
        result.tensors = [_copy(one, copies) for one in parts]
    copies[id(value)] = result
    return result


def _list_parts(value: Any) -> list[Any]:
    """Return the tensors of a comfy.nested_tensor.NestedTensor, which a LATENT of picture and sound has."""
    parts = getattr(value, "tensors", None)
    return parts if isinstance(parts, list) else []


def _seal_bytes(tensor: torch.Tensor) -> object:
    """Return the sha256 of a tensor's bytes on the CPU, else their `sum_words`; None for a sparse tensor."""
    import torch

    try:
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    except (RuntimeError, NotImplementedError):
        return None
    return hashlib.sha256(flat.numpy().data).digest() if flat.device.type == "cpu" else sum_words(flat)


def sum_words(flat: torch.Tensor) -> int:
    """Return the sum of bytes, uint8 [n], as 32-bit words with odd 64-bit weights by place, modulo 2^64.

    It is computed on the tensor's device. A change of one word always shows, because an odd weight has an inverse. Any
    other change is missed with a probability of about 2^-63.
    """
    import torch

    words = flat.view(torch.int32) if flat.numel() % 4 == 0 and flat.data_ptr() % 4 == 0 else flat
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    # The multiplier of Knuth's MMIX generator makes the order of the chunks count; it is odd like the weights.
    for place, chunk in enumerate(words.split(CHUNK)):
        weights = _make_weights(flat.device)[: len(chunk)]
        total = total * 6364136223846793005 + (chunk.to(torch.int64) * weights).sum() + place
    return int(total)


@functools.cache
def _make_weights(device: torch.device) -> torch.Tensor:
    """Return odd 64-bit numbers, int64 [CHUNK], the same for every seal of this process."""
    import torch

    generator = torch.Generator().manual_seed(0x5EA1)
    numbers = torch.randint(-(2**63), 2**63 - 1, (CHUNK,), generator=generator, dtype=torch.int64)
    return (numbers | 1).to(device)
