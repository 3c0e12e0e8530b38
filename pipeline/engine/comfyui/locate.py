"""Find the ComfyUI to run: one that the user names, the one that comfy-cli uses, or else a pinned copy."""

from __future__ import annotations

import configparser
import logging
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.comfyui.install import DEFAULT_VERSION, install_release
from pipeline.errors import ComfyUIError

log = logging.getLogger(__name__)

_VERSION_FILE = "comfyui_version.py"


@dataclass(frozen=True)
class Installation:
    """A ComfyUI on this machine: its root folder, its version, and what named it (`COMFYUI_PATH`, `pinned copy`)."""

    path: Path
    version: str
    source: str


def find_comfyui(path: str | None = None, version: str | None = None) -> Installation:
    """Return the ComfyUI to run. `path` and `version` are the config's `comfyui.path` and `comfyui.version`.

    The first of these counts: `path`; the pinned copy of `version`; COMFYUI_PATH; comfy-cli's default workspace; the
    pinned copy of DEFAULT_VERSION. Pinned copies are installed on first use. What the user names is never passed over:
    raises ComfyUIError if `path` or COMFYUI_PATH is no ComfyUI, if `version` is not that of `path`, and if a pinned
    copy cannot be installed.
    """
    if path:
        return _require_version(_open_named(path, "comfyui.path"), version)
    if version:
        return _install_pinned(version)
    if named := os.environ.get("COMFYUI_PATH"):
        return _open_named(named, "COMFYUI_PATH")
    return _default_workspace() or _install_pinned(DEFAULT_VERSION)


def read_version(path: Path) -> str:
    """Return the version of the ComfyUI in the folder `path`, without importing anything from it.

    Raises ComfyUIError if `path` has no readable comfyui_version.py.
    """
    file = path / _VERSION_FILE
    try:
        found = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", file.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError) as error:
        raise ComfyUIError(f"comfyui: the version of ComfyUI cannot be read, got {str(file)!r}: {error}") from error
    if found is None:
        raise ComfyUIError(f"comfyui: the version of ComfyUI cannot be read, got {str(file)!r} without a __version__")
    return found.group(1)


def _install_pinned(version: str) -> Installation:
    return Installation(install_release(version), version, "pinned copy")


def _open_named(text: str, source: str) -> Installation:
    """Return the ComfyUI in the folder that the setting `source` names. Raises ComfyUIError if there is none."""
    path = Path(text).expanduser().resolve()
    if not _is_comfyui(path):
        near = next((f"; did you mean {str(other)!r}?" for other in _list_nearby(path) if _is_comfyui(other)), ".")
        raise ComfyUIError(
            f"{source}: is not a ComfyUI folder, got {text!r} ({_explain_lack(path)}){near} "
            "Give the folder that holds ComfyUI's main.py, or leave it empty for the pinned copy"
        )
    return Installation(path, read_version(path), source)


def _is_comfyui(path: Path) -> bool:
    return (path / _VERSION_FILE).is_file()


def _list_nearby(path: Path) -> Iterable[Path]:
    """Yield the folders that people may mean by `path`: the clone inside it, or the folder around a file."""
    yield path / "ComfyUI"
    yield path.parent


def _explain_lack(path: Path) -> str:
    if not path.exists():
        return "it does not exist"
    return f"it has no {_VERSION_FILE}" if path.is_dir() else "it is a file"


def _require_version(found: Installation, version: str | None) -> Installation:
    if version and found.version != version:
        raise ComfyUIError(
            f"comfyui.version: is not the version of the ComfyUI at comfyui.path, got {version!r}, "
            f"but {str(found.path)!r} is {found.version!r}. Give that version, or leave one of the two empty"
        )
    return found


def _default_workspace() -> Installation | None:
    """Return the ComfyUI that `comfy set-default` chose; None if there is none or it is gone."""
    text = _read_workspace(_comfy_cli_config())
    if not text:
        return None
    path = Path(text)
    if not _is_comfyui(path):
        log.warning("passing over comfy-cli's default workspace %r: %s", text, _explain_lack(path))
        return None
    return Installation(path, read_version(path), "comfy-cli workspace")


def _comfy_cli_config() -> Path:
    """Return the file of comfy-cli's settings, which does not depend on XDG_CONFIG_HOME or APPDATA (constants.py)."""
    folders = {"win32": "AppData/Local", "darwin": "Library/Application Support"}
    return Path.home() / folders.get(sys.platform, ".config") / "comfy-cli" / "config.ini"


def _read_workspace(config_file: Path) -> str | None:
    settings = configparser.ConfigParser()
    try:
        settings.read(config_file)
        return settings.get("DEFAULT", "default_workspace", fallback=None)
    except (configparser.Error, UnicodeDecodeError) as error:
        log.warning("passing over comfy-cli's settings in %s: %s", config_file, error)
        return None
