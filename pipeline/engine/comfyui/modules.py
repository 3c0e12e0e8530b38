"""Where Python's modules lie, and which installed packages have them, without importing anything."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

RECORDED = re.compile(r"^([\w-]+)[./]", re.MULTILINE)
"""The top module or folder of each line of a package's list of files."""


@functools.cache
def locate_module(name: str) -> Path | None:
    """Return the file of the module `name`, or the folder of a package.

    None for a module of Python's own, and for one that is not there.
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
    """Whether a file or folder belongs to an installed package or to Python itself."""
    return any(path.is_relative_to(folder) for folder in list_site_folders())


@functools.cache
def find_packages(path: Path) -> dict[str, str]:
    """Return name and version of the installed packages that may have put a module at `path`."""
    folder = next((one for one in list_site_folders() if path.is_relative_to(one)), None)
    top = path.relative_to(folder).parts[:1] if folder else ()
    name = top[0].partition(".")[0] if top else ""
    installed = _list_installed()
    # Most packages are named after their module. The others are looked for in the lists of files, which takes longer.
    found = {name.lower()} if name.lower() in installed else _map_modules().get(name, set())
    return dict(installed[one] for one in sorted(found))


def _list_candidates(name: str) -> Iterator[Path]:
    """Where a module that is not loaded may be; only the part before the first dot is looked up, so that none is
    imported."""
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
    """Return the folders of installed packages and of Python's own modules."""
    named = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    sites = {text for text in sys.path if Path(text).name in ("site-packages", "dist-packages")}
    # The longest first: site-packages may lie within the folder of the standard library.
    return tuple(sorted((Path(text).resolve() for text in named | sites), key=lambda one: -len(one.parts)))


@functools.cache
def _list_installed() -> dict[str, tuple[str, str]]:
    """Name and version of the installed packages, by their names in lower case, with underscores for hyphens.

    Told by the names of their folders: `importlib.metadata.packages_distributions` takes half a second.
    """
    found: dict[str, tuple[str, str]] = {}
    for info in _list_infos():
        name, _, version = info.stem.partition("-")
        found.setdefault(_normalize(name), (name.replace("_", "-"), version))
    return found


@functools.cache
def _map_modules() -> dict[str, set[str]]:
    """The installed packages that have a top module or folder of a name, as keys of `_list_installed`."""
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
