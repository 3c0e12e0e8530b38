"""Copy the files that requests name, if they are in the allowed folders and are what the message says."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.record.artifacts import write_copy
from pipeline.service.messages import RefusedRequest, TensorFile


def take_file(name: str, file: TensorFile, roots: Sequence[Path], folder: Path, stem: str) -> Path:
    """Copy a file of a request into `folder` under the name `stem` and its own suffix, and return the copy.

    The copy is what is checked and sampled from, because the request may wait for minutes and its file may be replaced
    meanwhile. A link that leads out of `roots` is refused like a path outside of them. Raises RefusedRequest, whose
    reasons begin with the field `name`, and OutputError if the copy cannot be written.

    Example:
        take_file("latent_image", TensorFile(path="/data/a.pt"), [Path("/data")], Path("results/r-1"), "latent")
        # Path("results/r-1/latent.pt")
    """
    path = Path(_read_path(name, file.path))
    if ".." in path.parts:
        raise RefusedRequest(f"{name}.path: must not have '..', got {file.path!r}")
    if not path.is_absolute():
        raise RefusedRequest(f"{name}.path: must be absolute, got {file.path!r}")
    try:
        resolved = path.resolve(strict=True)
        _check_place(name, file, resolved, roots)  # before opening it: some files do something when they are opened
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, RuntimeError, ValueError) as error:
        raise RefusedRequest(f"{name}.path: cannot be opened, got {file.path!r}: {error}") from error
    try:
        info = os.fstat(descriptor)
        _check_place(name, file, Path(os.path.realpath(f"/proc/self/fd/{descriptor}")), roots)
        if not stat.S_ISREG(info.st_mode):
            raise RefusedRequest(f"{name}.path: is no file, got {file.path!r}")
        if file.size is not None and info.st_size != file.size:
            raise RefusedRequest(f"{name}.size: the file has {info.st_size} bytes, got {file.size}")
        with os.fdopen(descriptor, "rb", closefd=False) as source:
            copy, sha256 = write_copy(folder, f"{stem}{resolved.suffix}", source)
    finally:
        os.close(descriptor)
    if file.sha256 is not None and sha256 != file.sha256:
        raise RefusedRequest(f"{name}.sha256: the file has {sha256}, got {file.sha256}")
    return copy


def _check_place(name: str, file: TensorFile, resolved: Path, roots: Sequence[Path]) -> None:
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        raise RefusedRequest(f"{name}.path: is in none of the folders of worker.roots, got {file.path!r}")


def _read_path(name: str, text: str) -> str:
    if "\0" in text:
        raise RefusedRequest(f"{name}.path: must not have a null character, got {text!r}")
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise RefusedRequest(f"{name}.path: is no URI, got {text!r}: {error}") from error
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise RefusedRequest(f"{name}.path: must be a path or file:///PATH, got {text!r}")
    path = unquote(parts.path)
    if "\0" in path:
        raise RefusedRequest(f"{name}.path: must not have a null character, got {text!r}")
    return path
