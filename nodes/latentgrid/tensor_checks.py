"""Check tensors before sampling: they must be dense, of the right shape and dtype, finite, in memory of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

CONDITIONING_SHAPES = {3: "[batch, tokens, channels]"}
LATENT_SHAPES = {4: "[batch, channels, height, width]", 5: "[batch, channels, frames, height, width]"}


class Fault(Exception):
    """A mistake inside a file. Its message does not name the file."""


def rebuild(value: Any, visit: Callable[[torch.Tensor, str], torch.Tensor], where: str = "") -> Any:
    """Copy nested dicts, lists and tuples, and replace each tensor by ``visit(tensor, where)``.

    ``where`` leads to the tensor as in Python: ``metadata['reference_latents'][0]``. Other values are not copied.
    """
    if isinstance(value, torch.Tensor):
        return visit(value, where)
    if isinstance(value, dict):
        return {key: rebuild(item, visit, f"{where}[{describe_key(key)}]") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(rebuild(item, visit, f"{where}[{i}]") for i, item in enumerate(value))
    return value


def check_and_own(tensor: torch.Tensor, where: str) -> torch.Tensor:
    """Return a copy of a tensor in memory of its own. Raises Fault if it is not dense, not on the CPU or not finite."""
    _check_plain(tensor, where)
    owned = _own(tensor)
    _check_finite(owned, where)
    return owned


def check_shape(tensor: torch.Tensor, where: str, shapes: dict[int, str]) -> None:
    """Raise Fault unless a tensor is dense, floating point, and of a number of dimensions in `shapes`, none of them 0.

    `shapes` has the axes for each number of dimensions, as LATENT_SHAPES has.
    """
    _check_plain(tensor, where)
    right = " or ".join(f"{count}-D {axes}" for count, axes in shapes.items())
    if not tensor.is_floating_point():
        raise Fault(f"{where} must be floating point, got {describe(tensor)}. Right is a float tensor {right}.")
    if tensor.dim() not in shapes:
        hint = " Add the batch dimension by tensor.unsqueeze(0)." if tensor.dim() + 1 in shapes else ""
        raise Fault(f"{where} must be {right}, got {describe(tensor)}.{hint}")
    if 0 in tensor.shape:
        raise Fault(f"{where} has an empty dimension, got {describe(tensor)}. Right is {right}, each at least 1.")


def _check_plain(tensor: torch.Tensor, where: str) -> None:
    """Raise Fault for what is no array of numbers in memory: sparse, nested, quantized, packed and meta tensors."""
    kind = _find_unusual(tensor)
    if kind:
        raise Fault(f"{where} is a {kind} tensor. Save an ordinary dense one, in float32 or bfloat16.")


def _find_unusual(tensor: torch.Tensor) -> str | None:
    if tensor.is_nested or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return "nested" if tensor.is_nested else type(tensor).__name__
    if tensor.layout is not torch.strided:
        return f"sparse ({tensor.layout})"
    if tensor.is_quantized or _name_dtype(tensor).startswith("float4"):  # two values in a byte
        return f"quantized ({_name_dtype(tensor)})"
    return f"{tensor.device.type} (without data)" if tensor.device.type != "cpu" else None


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous copy in memory of its own, neither mapped from a file nor a view of a larger tensor."""
    # ComfyUI runs nodes in inference mode. A tensor made in it cannot be changed in place outside of it.
    with torch.inference_mode(False):
        return tensor.detach().clone(memory_format=torch.contiguous_format)


def _check_finite(tensor: torch.Tensor, where: str) -> None:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    # torch has no isinf for most 8-bit floats; in float32 every NaN and Inf stays one.
    values = tensor.float() if tensor.element_size() == 1 else tensor
    if torch.isfinite(values).all():
        return
    nans, infs = int(torch.isnan(values).sum()), int(torch.isinf(values).sum())
    raise Fault(
        f"{where} has {nans} NaN and {infs} Inf among its {values.numel()} values, got {describe(tensor)}. "
        "Make the file again from a model that does not overflow (bfloat16 or float32 instead of float16)."
    )


def describe(value: Any) -> str:
    """Describe a value in a few words, without its numbers."""
    if isinstance(value, torch.Tensor):
        dtype = _name_dtype(value)
        return f"{'an' if dtype.startswith('int') else 'a'} {dtype} tensor of shape {list(value.shape)}"
    if isinstance(value, dict):
        return f"a dict of {describe_names(list(value), 'key')}"
    if isinstance(value, (list, tuple)):
        shown = [type(item).__name__ for item in value[:3]] + ["..."] * (len(value) > 3)
        return f"a {type(value).__name__} of {len(value)} ({', '.join(shown)})" if value else "an empty list"
    return f"a {type(value).__name__}"


def describe_names(names: Sequence[Any], noun: str) -> str:
    """Return the number of names and up to five of them, as in "2 keys ('a', 'b')"."""
    shown = [describe_key(name) for name in names[:5]] + ["..."] * (len(names) > 5)
    return f"{len(names)} {noun}{'s' * (len(names) != 1)}" + (f" ({', '.join(shown)})" if names else "")


def describe_key(key: Any) -> str:
    """Return the repr of a text or an integer, cut to 60 characters; the type of any other key."""
    return repr(key)[:60] if isinstance(key, (str, int)) else type(key).__name__


def _name_dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
