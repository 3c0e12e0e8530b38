"""Fetch model sets from a hub.

Everything that can be known is checked before anything is fetched. A download that broke off is resumed, and a file
appears under its name only when its sha256 is right.

`hf_hub_download` of huggingface_hub starts a file again in each process, which is too slow for a file of 20 GB. So this
module uses only parts of huggingface_hub (metadata, addresses, the token, and `http_get`, which resumes at any byte)
and manages the unfinished file itself. `HF_ENDPOINT`, `HF_TOKEN` and its other variables have their usual meaning.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.cache_folder import cache_folder
from pipeline.base.file_hashes import FileHashes
from pipeline.base.file_lock import alone
from pipeline.base.file_state import FileState, hash_file
from pipeline.errors import ModelFileError, did_you_mean
from pipeline.models.sets import ModelFile, list_model_sets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """A file that is to be fetched: its address at a fixed commit, its size in bytes, and its path when complete."""

    file: ModelFile
    url: str
    size: int
    target: Path

    @property
    def part(self) -> Path:
        """The unfinished file. Its name contains the beginning of the expected sha256."""
        return self.target.with_name(f".{self.target.name}.{self.file.sha256[:12]}.part")

    @property
    def missing(self) -> int:
        """How many bytes are still to be fetched."""
        return max(0, self.size - _find_size(self.part))


def fetch_model_set(name: str, folders: Sequence[Path]) -> list[Path]:
    """Fetch the files of a model set that are in none of the models folders; return the paths of all its files.

    Files are fetched into the first folder.

    Raises ModelFileError. Before anything is fetched, one error reports everything that can be known: an unknown set,
    existing files with another content, refusals of the hub, folders that cannot be written, too little space. Later
    errors are a download that breaks off and a wrong sha256. Several processes may call it at once.

    Example:
        fetch_model_set("qwen_image_edit_2509", [Path("/data/models")])
    """
    sets = list_model_sets()
    if name not in sets:
        near = did_you_mean(name, sets) or f". The model sets are {', '.join(sets)}"
        raise ModelFileError(f"models: {name!r} is no model set{near}")
    problems: list[str] = []
    paths = [_find_file(file, folders, problems) for file in sets[name]]
    missing = [file for file, path in zip(sets[name], paths, strict=True) if path is None]
    downloads = [one for file in missing if (one := _plan_download(file, folders[0], problems))]
    problems += _find_folder_problems(downloads)
    if problems:
        raise ModelFileError("\n".join(problems))
    for download in downloads:
        _fetch(download)
    return [path or folders[0] / file.folder / file.name for file, path in zip(sets[name], paths, strict=True)]


def _find_file(file: ModelFile, folders: Sequence[Path], problems: list[str]) -> Path | None:
    existing = next((path for folder in folders if (path := folder / file.folder / file.name).is_file()), None)
    if existing is None:
        return None
    log.info("%s is there, in %s; checking its sha256", file.name, existing.parent)
    sha256 = FileHashes(cache_folder()).get(FileState.of(existing))
    if sha256 != file.sha256:
        message = f"is there and is another file (sha256 {sha256} instead of {file.sha256})"
        problems.append(f"{existing}: {message}. Move it away to fetch the right one")
    return existing


def _plan_download(file: ModelFile, folder: Path, problems: list[str]) -> Download | None:
    """Ask the hub about a file; add a problem and return None if the file cannot be fetched."""
    import httpx2
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    where = f"{file.folder}/{file.name}"
    try:
        metadata = get_hf_file_metadata(hf_hub_url(file.repo, file.path, revision=file.revision))
    except (httpx2.HTTPError, OSError) as error:
        problems.append(f"{where}: {_explain(file, error)}")
        return None
    if metadata.etag != file.sha256 or metadata.size is None:
        message = f"the hub has another file than the model set lists (sha256 {metadata.etag} instead of {file.sha256})"
        problems.append(f"{where}: {message}. Update latentgrid, or fetch the file by hand")
        return None
    url = hf_hub_url(file.repo, file.path, revision=metadata.commit_hash or file.revision)
    return Download(file, url, metadata.size, folder / file.folder / file.name)


def _explain(file: ModelFile, error: Exception) -> str:
    """Explain why the hub did not give a file, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    page = f"{constants.ENDPOINT}/{file.repo}"
    if isinstance(error, hub.GatedRepoError):
        return f"is behind a licence. Accept it at {page}, and set HF_TOKEN to a token of that account"
    if isinstance(error, hub.RepositoryNotFoundError):
        return f"the hub shows no {page}. If it is private, set HF_TOKEN to a token that may read it"
    if isinstance(error, hub.RevisionNotFoundError | hub.EntryNotFoundError):
        return f"{page} has no {file.path} at revision {file.revision}. Update latentgrid, or fetch the file by hand"
    if isinstance(error, hub.HfHubHTTPError):
        status = error.response.status_code
        advice = "Check HF_TOKEN" if status in (401, 403) else "Try again later"
        return f"the hub answers {status} to {page}. {advice}"
    if isinstance(error, hub.OfflineModeIsEnabled):
        return "the hub is not asked, because HF_HUB_OFFLINE is set. Unset it"
    return f"the connection to {constants.ENDPOINT} failed: {error}. Check the network, HTTPS_PROXY and HF_ENDPOINT"


def _find_folder_problems(downloads: Sequence[Download]) -> Iterator[str]:
    """Yield what prevents the downloads: folders that cannot be written, and file systems with too little space."""
    by_device: dict[int, list[Download]] = {}
    for folder in dict.fromkeys(download.target.parent for download in downloads):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            yield f"{folder}: cannot be written: {error.strerror}. Name another folder: comfyui.models=[FOLDER]"
            continue
        group = [download for download in downloads if download.target.parent == folder]
        by_device.setdefault(folder.stat().st_dev, []).extend(group)
    for group in by_device.values():
        needed, folder = sum(download.missing for download in group), group[0].target.parent
        if needed > (free := shutil.disk_usage(folder).free):
            message = f"{_gigabytes(needed)} are to be fetched, and {_gigabytes(free)} are free"
            yield f"{folder}: {message}. Make room, or name another folder: comfyui.models=[FOLDER]"


def _fetch(download: Download) -> None:
    file, target, part = download.file, download.target, download.part
    with alone(target.with_name(f".{file.name}.lock"), f"fetching {file.name}"):
        if target.is_file():  # another process has fetched it
            return
        if _find_size(part) > download.size:
            part.unlink()
        progress = f", {_gigabytes(arrived)} of it are there" if (arrived := _find_size(part)) else ""
        log.info("fetching %s (%s%s) ...", file.name, _gigabytes(download.size), progress)
        _append_rest(download)
        if (sha256 := hash_file(part)) != file.sha256:
            part.unlink()
            message = f"has arrived with a wrong sha256 ({sha256} instead of {file.sha256}) and is not kept"
            raise ModelFileError(f"{file.folder}/{file.name}: {message}. Run again")
        part.rename(target)
        log.info("... done: %s", target)


def _append_rest(download: Download) -> None:
    """Fetch the missing rest of the unfinished file.

    Raises ModelFileError; the bytes that have arrived are retained, so a later call resumes after them.
    """
    import httpx2
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    start = _find_size(download.part)
    try:
        with download.part.open("ab") as part:
            http_get(
                download.url,
                part,
                resume_size=start,
                headers=build_hf_headers(),
                expected_size=download.size,
                displayed_filename=download.target.name,
            )
            part.flush()
            os.fsync(part.fileno())
    except (httpx2.HTTPError, OSError) as error:
        arrived = _find_size(download.part)
        if isinstance(error, httpx2.ReadError) and arrived > start:  # http_get does not retry after a connection reset
            log.info("the connection broke off at %s; going on", _gigabytes(arrived))
            return _append_rest(download)
        reason = _explain(download.file, error)
        if isinstance(error, OSError) and error.errno is not None:
            reason = f"cannot be written: {error.strerror}. Make room"
        advice = f"{_gigabytes(arrived)} of {_gigabytes(download.size)} are kept: run again to go on from there"
        raise ModelFileError(f"{download.file.folder}/{download.target.name}: {reason}. {advice}") from error


def _find_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
