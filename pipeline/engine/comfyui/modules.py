"""Where Python's modules lie, and which installed packages have them, without importing anything."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path


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
    return any(path.is_relative_to(folder) for folder in _list_site_folders())


@functools.cache
def find_packages(path: Path) -> dict[str, str]:
    """Return name and version of the installed packages that may have put a module at `path`."""
    folder = next((one for one in _list_site_folders() if path.is_relative_to(one)), None)
    top = path.relative_to(folder).parts[:1] if folder else ()
    found = {}
    for name in _map_packages().get(Path(*top).stem, ()) if top else ():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _list_candidates(name: str) -> Iterator[Path]:
    """Where a module that is not loaded may be; only packages without dots are looked up, so that none is imported."""
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
def _list_site_folders() -> tuple[Path, ...]:
    named = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    sites = {text for text in sys.path if Path(text).name in ("site-packages", "dist-packages")}
    # The longest first: site-packages may lie within the folder of the standard library.
    return tuple(sorted((Path(text).resolve() for text in named | sites), key=lambda one: -len(one.parts)))


@functools.cache
def _map_packages() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())
