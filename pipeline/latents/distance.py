"""Read latents from files, and measure the distances between them."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pipeline.base.tensor_digest import digest_tensors
from pipeline.errors import RecordError

if TYPE_CHECKING:
    import torch

SUFFIXES = (".latent", ".safetensors", ".sft", ".pt", ".pth")
VERSION_MARK = "latent_format_version_0"  # ComfyUI's LoadLatent scales latents without this mark
UNMARKED_SCALE = 1.0 / 0.18215


VERDICTS = ("equal", "close", "different")
DISTANCES = ("max_abs", "mean_abs", "cosine", "psnr")


@dataclass(frozen=True)
class Distance:
    """How far a tensor is from a reference of the same shape, computed in float64.

    is_equal: whether dtype, shape and all bytes are the same; then nothing else needs to be looked at.
    max_abs, mean_abs: the largest and the mean absolute difference.
    cosine: the cosine of the angle between the two as vectors.
    psnr: the peak signal-to-noise ratio in dB, whose peak is the range of the reference; infinite without a difference.
    All distances are NaN if either tensor has a NaN.
    """

    is_equal: bool
    max_abs: float
    mean_abs: float
    cosine: float
    psnr: float

    def list_metrics(self) -> dict[str, float]:
        """Return the distances that are finite, by name; MLflow's charts show no others."""
        return {name: getattr(self, name) for name in DISTANCES if math.isfinite(getattr(self, name))}


def measure_distance(samples: torch.Tensor, reference: torch.Tensor) -> Distance:
    """Return the distance of `samples` from `reference`, tensors of any floating dtype.

    Raises ValueError if their shapes differ.

    Example: `measure_distance(torch.zeros(4), torch.ones(4)).max_abs` is 1.0.
    """
    import torch

    if samples.shape != reference.shape:
        raise ValueError(f"a latent {list(samples.shape)} cannot be compared with one {list(reference.shape)}")
    one, other = (tensor.detach().cpu().double().flatten() for tensor in (samples, reference))
    difference = (one - other).abs()
    norms = float(one.norm() * other.norm())
    squares = float(difference.square().mean())
    peak = float(other.max() - other.min())
    return Distance(
        is_equal=digest_tensors(samples) == digest_tensors(reference),
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        cosine=float(torch.dot(one, other)) / norms if norms else float(torch.equal(one, other)),
        psnr=_measure_psnr(peak, squares),
    )


def _measure_psnr(peak: float, squares: float) -> float:
    # A reference without a range has no peak: the ratio is 0, which is -inf dB. NaN stays NaN.
    if squares == 0:
        return math.inf
    return 10 * math.log10(peak**2 / squares) if peak > 0 else math.nan if math.isnan(peak) else -math.inf


Verdict: TypeAlias = Literal["equal", "close", "different"]


@dataclass(frozen=True)
class Tolerance:
    """How much a latent may differ and still be close: at most `atol + rtol * abs(reference)` in every element."""

    atol: float = 0.0
    rtol: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """The result of comparing a latent with a reference.

    said: the result as a text for people.
    distance: None if the shapes differ or one of the two is missing.
    """

    name: str
    verdict: Verdict
    said: str
    distance: Distance | None = None


def compare_latents(
    name: str, samples: torch.Tensor | None, reference: torch.Tensor | None, tolerance: Tolerance
) -> Comparison:
    """Compare two latents that are both called `name`; one of them is None if its side has none of that name."""
    if samples is None or reference is None:
        return Comparison(name, "different", "is there on one side only")
    try:
        distance = measure_distance(samples, reference)
    except ValueError as error:
        return Comparison(name, "different", str(error))
    if distance.is_equal:
        return Comparison(name, "equal", "every bit is the same", distance)
    distances = ", ".join(f"{one} {getattr(distance, one):.6g}" for one in DISTANCES)
    dtypes = "" if samples.dtype == reference.dtype else f", {samples.dtype} and {reference.dtype}"
    close = is_close(samples, reference, tolerance.atol, tolerance.rtol)
    return Comparison(name, "close" if close else "different", distances + dtypes, distance)


def find_worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of several verdicts; `equal` if there are none."""
    return max(verdicts, key=VERDICTS.index, default="equal")


def is_close(samples: torch.Tensor, reference: torch.Tensor, atol: float, rtol: float) -> bool:
    """Return whether shapes are the same and every difference is at most `atol + rtol * abs(reference)`.

    NaN is never close.
    """
    import torch

    if samples.shape != reference.shape:
        return False
    return torch.allclose(samples.detach().cpu().double(), reference.detach().cpu().double(), rtol=rtol, atol=atol)


def read_latent(path: Path) -> torch.Tensor:
    """Read the samples of a latent file, [batch, channels, (frames,) height, width], on the CPU.

    `.latent` and `.safetensors` must have `latent_tensor` (read as ComfyUI's LoadLatent does), `samples` or a single
    tensor, `.pt` a tensor or `{"samples": tensor}`. Raises RecordError for a file without a latent. No code in a file
    is executed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RecordError(f"{path}: is no latent file; it must be one of {', '.join(SUFFIXES)}")
    try:
        return _read_pickle(path) if path.suffix.lower() in (".pt", ".pth") else _read_safetensors(path)
    except FileNotFoundError as error:
        raise RecordError(f"{path}: does not exist") from error
    except (pickle.UnpicklingError, KeyError) as error:
        raise RecordError(f"{path}: holds no latent that can be read without executing code: {error}") from error
    except Exception as error:  # damaged bytes can end in almost any exception
        raise RecordError(f"{path}: cannot be read: {error}") from error


def _read_pickle(path: Path) -> torch.Tensor:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    return _require_tensor(content["samples"] if isinstance(content, Mapping) else content)


def _read_safetensors(path: Path) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        names = set(file.keys())
        found = [name for name in ("latent_tensor", "samples") if name in names] or list(names)
        if len(found) != 1:
            raise ValueError("it must hold a tensor latent_tensor or samples, or just one")
        samples = _require_tensor(file.get_tensor(found[0]))
    if found[0] != "latent_tensor":
        return samples
    return samples.float() * (1.0 if VERSION_MARK in names else UNMARKED_SCALE)


def _require_tensor(value: Any) -> torch.Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise TypeError(f"it holds a {type(value).__name__} where a tensor should be")
    return value
