"""Download an archive, resuming after a broken connection."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.errors import ComfyUIError

log = logging.getLogger(__name__)

PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # seconds before each new attempt at a download that broke off
CHUNK = 64 * 1024  # bytes that a broken connection can cost, because an unfinished chunk is lost
INSTEAD = "or give an existing ComfyUI by comfyui.path or COMFYUI_PATH"


def download(url: str, part: Path) -> None:
    """Download the rest of the file at `url` into `part`. Raises ComfyUIError; `part` then has what has arrived."""
    if url.startswith("file:"):  # copying is fast, so nothing is resumed
        shutil.copyfile(url2pathname(urlsplit(url).path), part)
    else:
        _fetch(url, part)


def _fetch(url: str, part: Path) -> None:
    """Download over HTTP, resuming after a broken connection."""
    import requests

    for pause_s in (*PAUSES_S, None):
        try:
            _append_rest(url, part)
            break
        except requests.RequestException as error:
            if error.response is not None and error.response.status_code < 500:
                raise ComfyUIError(
                    f"comfyui: the package index refuses the download of ComfyUI: {error}. "
                    f"If it wants a password, write that into ~/.netrc (uv tells no passwords), {INSTEAD}"
                ) from error
            if pause_s is None:
                raise ComfyUIError(
                    f"comfyui: the download of ComfyUI broke off: {error}. Check the network and run again: "
                    f"the download resumes at {format_megabytes(_size(part))}; {INSTEAD}"
                ) from error
            log.info("the download broke off at %s (%s); going on", format_megabytes(_size(part)), error)
            time.sleep(pause_s)


def _append_rest(url: str, part: Path) -> None:
    """Download in one request what `part` lacks. Raises what requests raises; `part` then has what has arrived."""
    import requests

    received = _size(part)
    # identity: a server that compresses on the way would make byte ranges and the checksum meaningless
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={received}-"} if received else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as response:
        cannot_resume = received > 0 and response.status_code == requests.codes.requested_range_not_satisfiable
        if not cannot_resume:
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            with part.open("ab" if resumed else "wb") as file:
                file.writelines(response.iter_content(CHUNK))
    if cannot_resume:  # `part` is at least as long as the file, so it is not the beginning of it
        part.unlink()
        _append_rest(url, part)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def format_megabytes(size: int) -> str:
    """Return a size in bytes as text, in MB of 10^6 bytes."""
    return f"{size / 1e6:.1f} MB"
