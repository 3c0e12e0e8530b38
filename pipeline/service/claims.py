"""The files that requests speak of: inside the allowed folders, and what the message says that they are."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.record.file_hashes import hash_file
from pipeline.service.messages import RefusedRequest, TensorFile


def find_file(name: str, file: TensorFile, roots: Sequence[Path]) -> Path:
    """The path of a file of a request. Raises RefusedRequest, whose reasons begin with `name`, the field.

    A link that leads out of `roots` is refused like a path that is out of them.
    """
    path = Path(_read_path(name, file.path))
    if ".." in path.parts:
        raise RefusedRequest(f"{name}.path: must not have '..', got {file.path!r}")
    if not path.is_absolute():
        raise RefusedRequest(f"{name}.path: must be absolute, got {file.path!r}")
    try:
        found = path.resolve(strict=True)
        info = found.stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise RefusedRequest(f"{name}.path: cannot be opened, got {file.path!r}: {error}") from error
    if not any(found.is_relative_to(root.resolve()) for root in roots):
        raise RefusedRequest(f"{name}.path: is in none of the folders of worker.roots, got {file.path!r}")
    if not stat.S_ISREG(info.st_mode):
        raise RefusedRequest(f"{name}.path: is no file, got {file.path!r}")
    if file.size is not None and info.st_size != file.size:
        raise RefusedRequest(f"{name}.size: the file has {info.st_size} bytes, got {file.size}")
    if file.sha256 is not None and (found_sha := hash_file(found)) != file.sha256:
        raise RefusedRequest(f"{name}.sha256: the file has {found_sha}, got {file.sha256}")
    return found


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
