"""The nodes that take a path and give a checked CONDITIONING or LATENT."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import torch

from .tensor_checks import rebuild
from .tensor_files import (
    CONDITIONING_SUFFIXES,
    LATENT_SUFFIXES,
    Conditioning,
    Latent,
    TensorFileError,
    find_nearby,
    read_conditioning,
    read_latent,
)

T = TypeVar("T")

# ComfyUI validates the whole graph, which reads the files of all loaders, before the first loader runs. A graph has
# about three loaders.
RECENT_LIMIT = 4
_recent: dict[tuple[Any, ...], Any] = {}
_recent_lock = Lock()


class LatentgridLoadConditioning:
    """The node that loads a CONDITIONING from a file."""

    DESCRIPTION = (
        "Loads a precomputed conditioning from a file and checks it before any model is loaded: its shape "
        "[batch, tokens, channels], its dtype, and that no value is NaN or infinite."
    )
    CATEGORY = "latentgrid"
    RETURN_TYPES = ("CONDITIONING",)
    RETURN_NAMES = ("CONDITIONING",)
    OUTPUT_TOOLTIPS = ("The conditioning of the file, with its metadata (pooled_output, reference_latents, ...).",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs in the form that ComfyUI asks for."""
        return {"required": {"path": _path_input(CONDITIONING_SUFFIXES)}}

    @classmethod
    def VALIDATE_INPUTS(cls, path: str | None) -> bool | str:
        """Return True, or what is wrong with the file at ``path``. A path of None is not known before the run."""
        return _validate(read_conditioning, path)

    @classmethod
    def IS_CHANGED(cls, path: str | None) -> str | float:
        """Return what changes with the file: its :func:`fingerprint`."""
        return fingerprint(path)

    @classmethod
    def describe_tensors(cls, path: str) -> list[dict[str, Any]]:
        """Return the shapes of the file's conditionings and of their `reference_latents`. Raises TensorFileError."""
        pairs = read_recent(read_conditioning, locate(path))
        references = [[list(one.shape) for one in metadata.get("reference_latents") or []] for _, metadata in pairs]
        return [
            {"shape": list(pair[0].shape), "references": shapes} for pair, shapes in zip(pairs, references, strict=True)
        ]

    def load(self, path: str) -> tuple[Conditioning]:
        """Return the conditioning ``[[tensor, metadata], ...]`` of the file. Raises TensorFileError."""
        return (read_recent(read_conditioning, locate(path)),)


class LatentgridLoadLatent:
    """The node that loads a LATENT from a file."""

    DESCRIPTION = (
        "Loads a latent from a file and checks it before any model is loaded: its shape [batch, channels, height, "
        "width] or [batch, channels, frames, height, width], its dtype, and that no value is NaN or infinite."
    )
    CATEGORY = "latentgrid"
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("LATENT",)
    OUTPUT_TOOLTIPS = ("The latent of the file, with what else it holds (noise_mask, ...).",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs in the form that ComfyUI asks for."""
        tooltip = "Of the picture, in pixels: only for a latent that diffusers packed, [batch, tokens, channels]."
        # The input has no widget, because a widget would write 0 into every prompt of the GUI.
        side = ("INT", {"min": 0, "max": 16384, "tooltip": tooltip, "forceInput": True})
        return {"required": {"path": _path_input(LATENT_SUFFIXES)}, "optional": {"height": side, "width": side}}

    @classmethod
    def VALIDATE_INPUTS(cls, path: str | None, height: int | None = 0, width: int | None = 0) -> bool | str:
        """Return True, or what is wrong with the file at ``path``. A value of None is not known before the run."""
        for name, side in (("height", height), ("width", width)):
            if side is not None and (type(side) is not int or side < 0):
                return f"{name} must be a whole number of pixels, got {side!r}."
        return True if height is None or width is None else _validate(read_latent, path, height, width)

    @classmethod
    def IS_CHANGED(cls, path: str | None, height: int | None = 0, width: int | None = 0) -> str | float:
        """Return what changes with the file: its :func:`fingerprint`."""
        return fingerprint(path)

    @classmethod
    def describe_tensors(cls, path: str, height: int = 0, width: int = 0) -> dict[str, Any]:
        """Return the shape of the file's latent, and whether all of it is 0. Raises TensorFileError."""
        samples = read_recent(read_latent, locate(path), height, width)["samples"]
        return {"shape": list(samples.shape), "empty": not samples.any()}

    def load(self, path: str, height: int = 0, width: int = 0) -> tuple[Latent]:
        """Return the latent ``{"samples": tensor, ...}`` of the file. Raises TensorFileError."""
        return (read_recent(read_latent, locate(path), height, width),)


def locate(path: str) -> Path:
    """Return the resolved path of the file that ``path`` names. The file may be missing.

    ``~`` is the home folder. A relative path starts at the working directory or, if there is no such file, at ComfyUI's
    input directory. Raises TensorFileError for a text that cannot be a path.
    """
    if not path.strip():
        raise TensorFileError(f"path is empty. Give the path of a file ({', '.join(LATENT_SUFFIXES)}).")
    try:
        places = _list_places(Path(path).expanduser())
        found = [place for place in places if place.exists()] or [place for place in places if find_nearby(place)]
        return (found or places)[0].resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise TensorFileError(f"{path!r} is not a path that can be used ({error}). Give the path of a file.") from error


def fingerprint(path: str | None) -> str | float:
    """Return the sha256 of the file at ``path``, which is read again only if its size or modification time changes.

    For a missing file return a text that says so. If ``path`` is None, because it is a link and the file is not known
    yet, return NaN, which makes ComfyUI run the node every time.
    """
    if path is None:
        return float("NaN")
    try:
        return _hash(*_stat(locate(path)))
    except (OSError, ValueError):
        return f"missing: {path}"


@functools.lru_cache(maxsize=256)
def _hash(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_recent(read: Callable[..., T], path: Path, *options: int) -> T:
    """Return ``read(path, *options)``, or its recent result if the file is still the same.

    Each call returns new dicts and lists around the same tensors, which ComfyUI's nodes do not change. Raises what
    ``read`` raises; a failure is not remembered.
    """
    try:
        key = (read, *_stat(path), *options)
    except OSError:
        return read(path, *options)  # which says what is wrong
    value = _recent.get(key)
    if value is None:
        value = read(path, *options)
        _remember(key, value)
    return rebuild(value, _return_same)


def _remember(key: tuple[Any, ...], value: Any) -> None:
    with _recent_lock:
        for old in [old for old in _recent if old[:2] == key[:2]]:  # the same file before it was changed
            del _recent[old]
        while len(_recent) >= RECENT_LIMIT:
            del _recent[next(iter(_recent))]
        _recent[key] = value


def _return_same(tensor: torch.Tensor, where: str) -> torch.Tensor:
    return tensor


def _stat(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _list_places(path: Path) -> list[Path]:
    folder = None if path.is_absolute() else _find_input_directory()
    return [path.absolute(), folder / path] if folder else [path.absolute()]


def _find_input_directory() -> Path | None:
    try:
        import folder_paths  # ComfyUI's own; there is none where the nodes are used without it
    except ImportError:
        return None
    return Path(folder_paths.get_input_directory())


def _path_input(suffixes: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    tooltip = (
        f"A file ({', '.join(suffixes)}). Absolute, or relative to the working directory or else to ComfyUI's input "
        "directory; ~ is the home folder."
    )
    return ("STRING", {"default": "", "tooltip": tooltip})


def _validate(read: Callable[..., Any], path: str | None, *options: int) -> bool | str:
    if path is None:
        return True
    try:
        read_recent(read, locate(path), *options)
    except TensorFileError as error:
        return str(error)
    return True
