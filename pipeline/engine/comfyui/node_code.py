"""Which code a node runs: what tells it from any other version of it, and what that code reads besides its inputs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pipeline.engine.comfyui.modules import find_packages, is_installed, locate_module

IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([\w.]+(?:[ \t]*,[ \t]*[\w.]+)*))", re.MULTILINE
)
VARIABLE = re.compile(
    rb"""(?:environ(?:\.\w+)?\s*[\[(]|getenv\s*\()\s*[bru]?["']([A-Za-z_]\w*)["']"""
    rb"""|["']([A-Za-z_]\w*)["']\s+(?:not\s+)?in\s+(?:os\.)?environ"""
)
TEXT = re.compile(rb"""["']([\w./-]+\.\w+)["']""")
"""In the text of Python files: the names of imported modules, of environment variables, and of files."""

NOT_CORE = ("custom_nodes", "comfy_extras", "comfy_api_nodes")
"""Folders of ComfyUI whose modules count only for the nodes that use them."""

IGNORED = frozenset(("__pycache__", ".DS_Store"))
IGNORED_SUFFIXES = frozenset((".pyc", ".log"))
LARGE = 16 << 20
"""Bytes from which a file in the folder of a pack, a checkpoint say, counts by size and times instead of content."""


@dataclass(frozen=True)
class Code:
    """The code of a pack or of a module of nodes.

    sha256: over every file of it, data files included, and over the files outside of it that it imports.
    packages: name and version of the installed packages that it imports.
    variables: the environment variables whose names stand in it.
    """

    sha256: str
    packages: Mapping[str, str]
    variables: frozenset[str]


@functools.cache
def read_code(root: Path, comfyui: Path) -> Code:
    """Return the code of a pack (a folder or a file) or of one of ComfyUI's node modules, as this process first saw it.

    `comfyui` is ComfyUI's folder. Imports are followed by what the files say and by what their modules hold. They end
    at installed packages, and at ComfyUI's core, which `comfyui.code` covers.
    """
    digest = hashlib.sha256()
    packages: dict[str, str] = {}
    variables: set[str] = set()
    seen: set[Path] = set()
    waiting = [root]
    held = _map_held_modules()
    while waiting:
        part = waiting.pop(0)
        if part in seen:
            continue
        seen.add(part)
        for file in _list_files(part):
            content = _read(file)
            name = file.relative_to(part if part.is_dir() else part.parent).as_posix()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
            if file.suffix != ".py":
                continue
            variables |= find_variables(content)
            paths = {locate_module(one) for one in _find_imports(content) | held.get(file, set())}
            for path in sorted(path for path in paths if path):
                if is_installed(path):
                    packages |= find_packages(path)
                elif _is_apart(path, part, comfyui):
                    waiting.append(path)
            if part == file:
                waiting += _find_neighbours(content, file)
    return Code(digest.hexdigest(), packages, frozenset(variables))


def find_variables(content: bytes) -> set[str]:
    """Return the names of the environment variables that the text of a Python file reads."""
    if b"environ" not in content and b"getenv" not in content:
        return set()
    return {(one or other).decode() for one, other in VARIABLE.findall(content)}


def find_source(cls: type) -> Path | None:
    """Return the file that a class was defined in, None if nothing says so.

    A pack may have loaded it without registering its module, which `inspect.getsourcefile` depends on; the code of its
    function knows too.
    """
    with contextlib.suppress(TypeError, OSError):
        if found := inspect.getsourcefile(cls):
            return Path(found).resolve()
    functions = [getattr(cls, getattr(cls, "FUNCTION", "") or "", None), *vars(cls).values()]
    for one in functions:
        code = getattr(inspect.unwrap(getattr(one, "__func__", one)) if callable(one) else one, "__code__", None)
        if code is not None and Path(code.co_filename).is_file():
            return Path(code.co_filename).resolve()
    return None


def list_core_files(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of ComfyUI's core: the Python files at its top, and all files of some folders."""
    yield from sorted(root.glob("*.py"))
    for folder in folders:
        yield from _list_files(root / folder)


def _list_files(part: Path) -> Iterator[Path]:
    if part.is_file():
        yield part
        return
    for path in sorted(part.rglob("*")):
        inner = path.relative_to(part).parts
        hidden = any(name.startswith(".") for name in inner[:-1])
        if not hidden and not IGNORED & {*inner} and path.suffix not in IGNORED_SUFFIXES and path.is_file():
            yield path


def _read(file: Path) -> bytes:
    """The content of a file; of a large one what tells its state; of one that cannot be read that."""
    try:
        status = file.stat()
        if status.st_size > LARGE:
            return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode()
        return file.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}".encode()


def _find_imports(content: bytes) -> set[str]:
    """The names of the modules that a file imports; relative ones are part of the pack, or `_find_neighbours`'s."""
    found = set()
    for one, many in IMPORT.findall(content):
        found |= {name.strip().decode() for name in (one or many).split(b",")}
    return {name for name in found if not name.startswith(".")}


def _map_held_modules() -> dict[Path, set[str]]:
    """The names of the modules that each loaded module holds: some are imported under names that are computed."""
    found: dict[Path, set[str]] = {}
    for module in list(sys.modules.values()):
        file = vars(module).get("__file__") if _is_module(module) else None
        if isinstance(file, str):
            held = {one.__name__ for one in list(vars(module).values()) if _is_module(one)}
            found.setdefault(Path(file), set()).update(held)
    return found


def _is_module(value: object) -> bool:
    # isinstance would ask for `__class__`, at which deprecated objects of torch warn.
    return issubclass(type(value), ModuleType)


def _find_neighbours(content: bytes, file: Path) -> list[Path]:
    """The files beside a module that is a pack of its own, or one of ComfyUI's: those that it imports relative to
    itself, and those whose names stand in its text."""
    relative = [one for one, _ in IMPORT.findall(content) if one.startswith(b".")]
    modules = [file.parent / f"{one.decode().strip('.').replace('.', '/')}.py" for one in relative]
    named = [file.parent / text.decode() for text in TEXT.findall(content)]
    return sorted({path.resolve() for path in [*modules, *named] if path.is_file()})


def _is_apart(path: Path, part: Path, comfyui: Path) -> bool:
    """Whether the code of a module is neither in `part` nor in ComfyUI's core."""
    if path.is_relative_to(part):
        return False
    inner = path.relative_to(comfyui).parts if path.is_relative_to(comfyui) else None
    return inner is None or (len(inner) > 1 and inner[0] in NOT_CORE)
