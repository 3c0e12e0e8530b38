"""Read conditionings and latents from files, and refuse every file that would spoil a sampling run.

A file is read without running any code in it. Each tensor is checked and copied into memory of its own, so that no
result depends on the file any more. Every mistake raises :class:`TensorFileError`.
"""

import difflib
import io
import logging
import pickle
import pickletools
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .metadata_checks import check_entries, check_metadata
from .packed_latents import is_packed, unpack_samples
from .tensor_checks import (
    CONDITIONING_SHAPES,
    LATENT_SHAPES,
    Fault,
    check_and_own,
    check_shape,
    describe,
    describe_names,
    rebuild,
)

log = logging.getLogger("latentgrid")

Conditioning = list[list[Any]]
"""ComfyUI's CONDITIONING: ``[[tensor, metadata], ...]``."""

Latent = dict[str, Any]
"""ComfyUI's LATENT: ``{"samples": tensor, ...}``."""

PICKLE_SUFFIXES = (".pt", ".pth")
CONDITIONING_SUFFIXES = (*PICKLE_SUFFIXES, ".safetensors", ".sft")
LATENT_SUFFIXES = (*CONDITIONING_SUFFIXES, ".latent")

SAVE_CONDITIONING = "Save a conditioning by torch.save([tensor, {...}], path)"
SAVE_LATENT = 'Save a latent by torch.save({"samples": tensor}, path)'

# From ComfyUI's LoadLatent: a file without this mark is from the time when latents were saved unscaled.
VERSION_MARK = "latent_format_version_0"
UNMARKED_SCALE = 1.0 / 0.18215

DOTTED_NAME = r"[A-Za-z_]\w*(?:\.\w+)*"


class TensorFileError(ValueError):
    """A file is no usable conditioning or latent. The message names the file, the mistake and what would be right."""


def read_conditioning(path: Path) -> Conditioning:
    """Read ``[[tensor, metadata], ...]`` from a ``.pt``, ``.pth``, ``.safetensors`` or ``.sft`` file.

    Pickled files hold a tensor, ``[tensor, metadata]`` or a list of such pairs. In a safetensors file the tensor is
    named ``conditioning`` or ``cond``, or is the only one; all others become metadata by their names.

    Every conditioning tensor is floating point, [batch, tokens, channels], none of them 0. All tensors, also those in
    the metadata, are finite, on the CPU, contiguous and need no gradient; their dtypes are the file's. Metadata is as
    ComfyUI's models read it; what was changed for that is logged, and also keys that they do not read.

    Raises TensorFileError for any other content.
    """
    with _naming(path):
        _check_file(path, CONDITIONING_SUFFIXES)
        if _is_pickle(path):
            pairs = _find_pairs(_read_pickle(path, SAVE_CONDITIONING))
        else:
            name, tensors = _read_safetensors(path, ("conditioning", "cond"))
            pairs = [(tensors.pop(name), tensors)]
        several = len(pairs) > 1
        return [_check_pair(path, pair, f"pair {i}: " if several else "") for i, pair in enumerate(pairs)]


def read_latent(path: Path, height: int = 0, width: int = 0) -> Latent:
    """Read ``{"samples": tensor, ...}`` from a ``.pt``, ``.pth``, ``.safetensors``, ``.sft`` or ``.latent`` file.

    Pickled files hold the tensor or that dict. In the others the tensor is ``latent_tensor`` (then read as ComfyUI's
    LoadLatent does: float32, and scaled if the file is an old one) or ``samples``, or is the only one. Further entries,
    such as ``noise_mask``, are returned too.

    The samples are floating point, [batch, channels, height, width] or [batch, channels, frames, height, width], none
    of them 0. All tensors are finite, on the CPU, contiguous and need no gradient. A packed latent of diffusers is
    unpacked if `height` and `width` of its picture, in pixels, are given; its values stay as they are.

    Raises TensorFileError for any other content.
    """
    with _naming(path):
        _check_file(path, LATENT_SUFFIXES)
        if _is_pickle(path):
            latent = _find_samples(_read_pickle(path, SAVE_LATENT))
        else:
            name, tensors = _read_safetensors(path, ("latent_tensor", "samples"))
            latent = {"samples": _unscale(name, tensors), **tensors}
        samples, unpacked = unpack_samples(latent["samples"], height, width)
        check_shape(samples, "samples", LATENT_SHAPES)
        checked, notes = check_entries(rebuild({**latent, "samples": samples}, check_and_own, "latent"))
        _report(path, [*unpacked, *notes])
        return checked


def find_nearby(path: Path) -> str | None:
    """Return the name of a file beside ``path`` that was probably meant: the same but for its suffix, or similar."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in LATENT_SUFFIXES]
    except OSError:
        return None
    same_stem = [name for name in sorted(names) if Path(name).stem.lower() == path.stem.lower()]
    return next(iter(same_stem or difflib.get_close_matches(path.name, names, n=1)), None)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn a Fault raised in the ``with`` block into a TensorFileError that names the file."""
    try:
        yield
    except Fault as fault:
        raise TensorFileError(f"{path}: {fault}") from fault.__cause__
    except RecursionError:
        raise TensorFileError(f"{path}: the metadata is nested too deeply or holds itself. Save it flat.") from None


# The file


def _is_pickle(path: Path) -> bool:
    return path.suffix.lower() in PICKLE_SUFFIXES


def _check_file(path: Path, suffixes: Sequence[str]) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise Fault(_describe_missing(path)) from None
    except (OSError, ValueError) as error:
        raise Fault(f"cannot be opened ({error}).") from error
    if stat.S_ISDIR(status.st_mode):
        raise Fault("is a folder. Give the path of a file in it.")
    if path.suffix.lower() not in suffixes:
        raise Fault(f"has the extension {path.suffix!r}; it must be one of {', '.join(suffixes)}.")
    if not stat.S_ISREG(status.st_mode):
        raise Fault("is not an ordinary file.")
    if status.st_size == 0:
        raise Fault("is empty (0 bytes). Save or copy it again.")
    if _read_head(path).startswith(b"version https://git-lfs"):
        raise Fault("is a Git LFS pointer, not the file itself. Run `git lfs pull`.")


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(40)
    except OSError as error:
        raise Fault(f"cannot be opened ({error.strerror}).") from error


def _describe_missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"does not exist, and neither does its folder {path.parent}."
    nearby = find_nearby(path)
    return f"does not exist. Did you mean {nearby!r}?" if nearby else "does not exist."


def _read_pickle(path: Path, save_right: str) -> Any:
    """Return what torch.save wrote: tensors, containers, plain values. Raises Fault if it would call anything else."""
    try:
        with warnings.catch_warnings():
            # torch warns of sparse tensors, TorchScript and unusual pickles; all of them are refused by name instead.
            warnings.simplefilter("ignore")
            # No mmap: the file may be overwritten while its tensors are in use.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError as error:
        raise Fault(_explain_refusal(path, str(error), save_right)) from None
    except Exception as error:  # damaged bytes can end in almost any exception
        raise Fault(f"cannot be read: {_explain_damage(error)} {save_right}.") from error


def _explain_refusal(path: Path, message: str, save_right: str) -> str:
    named = re.search(rf"GLOBAL ({DOTTED_NAME}) (?:was not an allowed global|whose module)", message)
    names = [named[1]] if named else _list_foreign_globals(path)
    if names:
        called = ", ".join(names[:3])
        return f"would execute code if it were loaded (it calls {called}), so it was NOT loaded. {save_right}."
    paragraphs = message.removeprefix("Weights only load failed. ").split("\n\n")
    reason = paragraphs[-2] if len(paragraphs) > 1 else paragraphs[0]
    return f"cannot be read safely: {_explain_damage(reason)} {save_right}, in its default pickle protocol."


def _list_foreign_globals(path: Path) -> list[str]:
    """Return what a pickle would import besides torch. Its opcodes are read but not run."""
    names: list[str] = []
    words: list[str] = []
    with suppress(Exception):  # genops raises after the last pickle of the file, or where it is damaged
        stream = io.BytesIO(_extract_pickle(path))
        while True:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    names.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.append(".".join(words[-2:]))
                elif isinstance(argument, str):
                    words.append(argument)
    # Damaged bytes can look like an import too, but hardly like one of a proper name.
    return [name for name in dict.fromkeys(names) if re.fullmatch(DOTTED_NAME, name) and _is_foreign(name)]


def _is_foreign(name: str) -> bool:
    return not name.startswith(("torch.", "collections.", "_codecs.", "__builtin__.set"))


def _extract_pickle(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _read_safetensors(path: Path, wanted: Sequence[str]) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the name of the wanted tensor, and all tensors by name, still in the memory of the mapped file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            # Chosen first: a whole model given by mistake is refused without reading its gigabytes.
            chosen = _choose(names, wanted)
            return chosen, {name: file.get_tensor(name) for name in names}
    except Fault:
        raise
    except Exception as error:  # SafetensorError, and what torch raises for a dtype it does not know
        raise Fault(f"cannot be read as safetensors: {_explain_damage(error)}") from error


def _choose(names: Sequence[str], wanted: Sequence[str]) -> str:
    found = [name for name in wanted if name in names] or list(names)
    if len(found) == 1:
        return found[0]
    called = " or ".join(repr(name) for name in wanted)
    raise Fault(f"holds {describe_names(names, 'tensor')}. Exactly one must be called {called}, or be the only one.")


def _explain_damage(complaint: Exception | str) -> str:
    """Return the first sentence of a reader's error, at most 160 characters, and what it means."""
    sentence = re.split(r"\n|\. ", str(complaint).strip(), maxsplit=1)[0][:160].rstrip(".?")
    return f"{sentence or type(complaint).__name__}. It is damaged, cut short or of another format."


# The structure


def _find_pairs(value: Any) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    if isinstance(value, torch.Tensor):
        return [(value, {})]
    if _is_pair(value):
        return [(value[0], value[1])]
    if isinstance(value, (list, tuple)) and value and all(map(_is_pair, value)):
        return [(tensor, metadata) for tensor, metadata in value]
    raise Fault(f"holds {describe(value)}; a conditioning is a tensor or [tensor, metadata]. {SAVE_CONDITIONING}.")


def _is_pair(value: Any) -> bool:
    if not (isinstance(value, (list, tuple)) and len(value) == 2):
        return False
    return isinstance(value[0], torch.Tensor) and isinstance(value[1], dict)


def _find_samples(value: Any) -> Latent:
    if isinstance(value, torch.Tensor):
        return {"samples": value}
    if isinstance(value, dict) and isinstance(value.get("samples"), torch.Tensor):
        return value
    raise Fault(f'holds {describe(value)}; a latent is a tensor or {{"samples": tensor}}. {SAVE_LATENT}.')


def _unscale(name: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Remove the samples ``name`` from ``tensors`` and return them, scaled as by LoadLatent if ComfyUI wrote them."""
    samples = tensors.pop(name)
    if name != "latent_tensor":
        return samples
    marked = tensors.pop(VERSION_MARK, None) is not None
    if not is_packed(samples):
        check_shape(samples, name, LATENT_SHAPES)
    return samples.float() * (1.0 if marked else UNMARKED_SCALE)


def _report(path: Path, notes: Sequence[str]) -> None:
    for note in notes:
        log.warning("%s: %s", path, note)


def _check_pair(path: Path, pair: tuple[torch.Tensor, dict[str, Any]], prefix: str) -> list[Any]:
    tensor, metadata = pair
    where = f"{prefix}the conditioning"
    check_shape(tensor, where, CONDITIONING_SHAPES)
    if not all(isinstance(key, str) for key in metadata):
        raise Fault(f"{prefix}metadata must have names as keys, got {describe(metadata)}.")
    owned = rebuild(metadata, check_and_own, f"{prefix}metadata")
    checked, notes = check_metadata(tensor, owned, f"{prefix}metadata")
    _report(path, notes)
    return [check_and_own(tensor, where), checked]
