"""Locate Python modules, and the installed packages that have them, without importing anything."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

RECORDED = re.compile(r"^([\w-]+)[./]", re.MULTILINE)
"""Matches the top module or folder in each line of a package's list of files (RECORD)."""


@functools.cache
def locate_module(name: str) -> Path | None:
    """Return the file of the module `name`, or the folder of a package.

    Return None for a module of the standard library, and for one that is not found.
    """
    if name.partition(".")[0] in sys.stdlib_module_names:
        return None
    loaded = getattr(sys.modules.get(name), "__file__", None)
    for file in [Path(loaded)] if isinstance(loaded, str) else _list_candidates(name):
        if file.is_file():
            path = file.resolve()
            return path.parent if path.name == "__init__.py" else path
    return None


def is_installed(path: Path) -> bool:
    """Return whether a file or folder belongs to an installed package or to Python itself."""
    return any(path.is_relative_to(folder) for folder in list_site_folders())


@functools.cache
def find_packages(path: Path) -> dict[str, str]:
    """Return the names and versions of the installed packages that may have installed a module at `path`."""
    folder = next((one for one in list_site_folders() if path.is_relative_to(one)), None)
    top = path.relative_to(folder).parts[:1] if folder else ()
    name = top[0].partition(".")[0] if top else ""
    installed = _list_installed()
    # Most packages are named after their module. The others are looked up in the lists of files, which takes longer.
    found = {name.lower()} if name.lower() in installed else _map_modules().get(name, set())
    return dict(installed[one] for one in sorted(found))


def _list_candidates(name: str) -> Iterator[Path]:
    """Yield the files that a module which is not loaded may have.

    Only the part before the first dot is looked up, because looking up a submodule would import its parents.
    """
    top, _, rest = name.partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return
    inner = rest.replace(".", "/")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if rest:
            yield Path(location, f"{inner}.py")
            yield Path(location, inner, "__init__.py")
    if spec and spec.origin:
        yield Path(spec.origin)


@functools.cache
def list_site_folders() -> tuple[Path, ...]:
    """Return the folders of installed packages and of Python's own modules, the longest paths first."""
    named = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    sites = {text for text in sys.path if Path(text).name in ("site-packages", "dist-packages")}
    # The longest first, because site-packages may be within the folder of the standard library.
    return tuple(sorted((Path(text).resolve() for text in named | sites), key=lambda one: -len(one.parts)))


@functools.cache
def _list_installed() -> dict[str, tuple[str, str]]:
    """Return name and version of the installed packages, by their names in lower case with underscores for hyphens.

    They are read from the names of folders, because `importlib.metadata.packages_distributions` takes half a second.
    """
    found: dict[str, tuple[str, str]] = {}
    for info in _list_infos():
        name, _, version = info.stem.partition("-")
        found.setdefault(_normalize(name), (name.replace("_", "-"), version))
    return found


@functools.cache
def _map_modules() -> dict[str, set[str]]:
    """Return the installed packages, as keys of `_list_installed`, by the names of their top modules and folders."""
    found: dict[str, set[str]] = {}
    for info in _list_infos():
        tops = _read(info / "top_level.txt").split() or RECORDED.findall(_read(info / "RECORD"))
        for top in set(tops):
            found.setdefault(top, set()).add(_normalize(info.stem.partition("-")[0]))
    return found


@functools.cache
def _list_infos() -> list[Path]:
    return [info for folder in list_site_folders() for info in sorted(folder.glob("*.dist-info"))]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _normalize(name: str) -> str:
    return re.sub(r"[-.]", "_", name).lower()
