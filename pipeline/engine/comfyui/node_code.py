"""Find the code that a node runs: what distinguishes it from other versions, and what it reads besides its inputs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import ModuleType

from pipeline.base.file_state import read_state, walk_files
from pipeline.engine.comfyui.modules import find_packages, is_installed, list_site_folders, locate_module

IMPORT = re.compile(
    rb"""(?:^|[;:])[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]*(\([^)]*\)|(?:[^\n;#\\]|\\\r?\n)*)"""
    rb"""|import[ \t]+([\w., \t]+))|(?:import_module|__import__)\s*\(\s*["']([\w.]+)["']""",
    re.MULTILINE,
)
VARIABLE = re.compile(
    rb"""(?:environ(?:\.\w+)?\s*[\[(]|getenv\s*\()\s*[bru]?["']([A-Za-z_]\w*)["']"""
    rb"""|["']([A-Za-z_]\w*)["']\s+(?:not\s+)?in\s+(?:os\.)?environ|["']([A-Z][A-Z0-9_]{2,})["']"""
)
TEXT = re.compile(rb"""["']([^"'\n]{1,200})["']""")
"""IMPORT, VARIABLE and TEXT match imports, names of environment variables, and texts in Python files.

A text in capitals may also be the name of a variable.
"""

CORE = ("comfy", "comfy_api", "comfy_config", "comfy_execution", "utils")
"""ComfyUI's folders of code that nodes share; the modules of nodes are read one by one."""

NOT_CORE = ("custom_nodes", "comfy_extras", "comfy_api_nodes")
"""Folders of ComfyUI whose modules count only for the nodes that use them."""

IGNORED_FOLDERS = frozenset(("__pycache__",))
IGNORED_SUFFIXES = (".pyc", ".log", ".DS_Store")
LARGE = 16 << 20
"""Bytes above which a file in the folder of a pack (a checkpoint) counts by its size and times, not by its content."""


@dataclass(frozen=True)
class Code:
    """The code of a pack or of a module of nodes.

    sha256: over all its files, data files included, and over the files outside of it that it imports.
    packages: name and version of the installed packages that it imports.
    variables: the environment variables that it names.
    data: the states of its data files and of its folders, by path. Data is read while nodes run, and may change.
    """

    sha256: str
    packages: Mapping[str, str]
    variables: frozenset[str]
    data: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)


def read_code(root: Path, comfyui: Path) -> Code:
    """Return the code of a pack (a folder or a file) or of one of ComfyUI's node modules.

    `comfyui` is ComfyUI's folder. Python files count as this process first saw them, because it had imported them by
    then; data files count as they are now.
    """
    code = _read_code(root, comfyui)
    if any(read_state(path) != state for path, state in code.data.items()):
        _read_code.cache_clear()
        code = _read_code(root, comfyui)
    return code


@functools.cache
def _read_code(root: Path, comfyui: Path) -> Code:
    """Read what `read_code` returns.

    Imports are found in the text of the files and in their loaded modules. They are not followed into installed
    packages, nor into ComfyUI's core, which the fact `comfyui.code` covers.
    """
    digest = hashlib.sha256()
    packages: dict[str, str] = {}
    variables: set[str] = set()
    seen: set[Path] = set()
    data: dict[Path, tuple[int, ...]] = {}
    waiting = [root]
    while waiting:
        part = waiting.pop(0)
        if part in seen:
            continue
        seen.add(part)
        # Folders are noted before their files are listed, also those without files; a single module has none.
        data |= {folder: read_state(folder) for folder in _list_folders(part)}
        for file in list_files(part):
            if file.suffix != ".py":
                data[file] = read_state(file)  # before it is read, so that a later change shows
            content = _read_python(file) if file.suffix == ".py" else read_content(file)
            name = file.relative_to(part if part.is_dir() else part.parent).as_posix()
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
            if file.suffix != ".py":
                continue
            variables |= find_variables(content)
            for path in _locate_imports(content, _list_referenced_modules(file)):
                if is_installed(path) and (found := find_packages(path)):
                    packages |= found
                elif _is_elsewhere(path, part, comfyui):
                    waiting.append(path)
            if part == file and not _is_core(file, comfyui):
                waiting += _find_neighbours(content, file)
    return Code(digest.hexdigest(), packages, frozenset(variables), data)


def _list_folders(part: Path) -> Iterator[Path]:
    for folder, inner, _ in os.walk(part, followlinks=False):
        inner[:] = [name for name in inner if name not in IGNORED_FOLDERS and not name.startswith(".")]
        yield Path(folder)


@functools.cache
def _read_python(file: Path) -> bytes:
    return read_content(file)


def find_variables(content: bytes) -> set[str]:
    """Return the names of the environment variables that a Python file with this content may read."""
    if b"environ" not in content and b"getenv" not in content:
        return set()
    return {name.decode() for found in VARIABLE.findall(content) for name in found if name}


def find_source(cls: type) -> Path | None:
    """Return the file that a class was defined in, None if it cannot be found out.

    `inspect.getsourcefile` needs the module of the class in sys.modules, where some packs do not register it. Then the
    code objects of its functions name the file.
    """
    with contextlib.suppress(TypeError, OSError):
        if found := inspect.getsourcefile(cls):
            return Path(found).resolve()
    own = vars(cls)
    # An inherited function may be defined in another file, so it comes last.
    functions = [own.get(getattr(cls, "FUNCTION", "")), *own.values(), getattr(cls, getattr(cls, "FUNCTION", ""), None)]
    for one in functions:
        code = getattr(inspect.unwrap(getattr(one, "__func__", one)) if callable(one) else one, "__code__", None)
        if code is not None and Path(code.co_filename).is_file():
            return Path(code.co_filename).resolve()
    return None


@functools.cache
def read_core(comfyui: Path) -> Code:
    """Return the code of ComfyUI's core, which all nodes share, without the packages that it imports."""
    digest = hashlib.sha256()
    variables: set[str] = set()
    tops = [name for name in _list_names(comfyui) if name.endswith(".py")]
    inner = [f"{folder}/{name}" for folder in CORE for name in _walk_code(comfyui / folder)]
    for name in tops + inner:
        content = read_content(f"{comfyui}/{name}")
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
        if name.endswith(".py"):
            variables |= find_variables(content)
    return Code(digest.hexdigest(), {}, frozenset(variables))


def list_files(part: Path) -> Iterator[Path]:
    """Yield a file itself, or the files below a folder without hidden folders, compiled files and logs."""
    if part.is_file():
        yield part
        return
    yield from (part / name for name in _walk_code(part))


def _walk_code(folder: Path) -> Iterator[str]:
    names = walk_files(folder, IGNORED_FOLDERS, hidden=False)
    return (name for name in names if not name.endswith(IGNORED_SUFFIXES))


def read_content(file: Path | str) -> bytes:
    """Return the content of a file; for a large one its size and times, for one that cannot be read the reason."""
    try:
        with Path(file).open("rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_size > LARGE:
                return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode()
            return opened.read()
    except OSError as error:
        return f"cannot be read: {error.strerror}".encode()


def _locate_imports(content: bytes, referenced: set[str]) -> list[Path]:
    """Return the paths of the modules that a file imports by absolute names, and of the modules named in `referenced`.

    Relative imports are part of the pack, or found by `_find_neighbours`.
    """
    found: set[Path | None] = {locate_module(name) for name in referenced}
    for module, names, imported, computed in IMPORT.findall(content):
        for name in (module or computed or imported).decode().split(","):
            if not name.strip() or name.strip().startswith("."):
                continue
            module_name = name.split()[0]
            path = locate_module(module_name)
            found.add(path)
            if names and not (path and is_installed(path)):
                found |= {locate_module(f"{module_name}.{one}") for one in re.findall(r"\w+", names.decode())}
    return sorted(path for path in found if path)


def _list_referenced_modules(file: Path) -> set[str]:
    """Return the names of the modules that a file's loaded modules refer to; some are imported by computed names."""
    modules = _map_modules(len(sys.modules)).get(str(file), [])
    return {member.__name__ for module in modules for member in list(vars(module).values()) if _is_module(member)}


@functools.lru_cache(1)
def _map_modules(count: int) -> dict[str, list[ModuleType]]:
    """Return the loaded modules by their files, without installed packages; `count` is how many are loaded now."""
    installed = tuple(f"{folder}{os.sep}" for folder in list_site_folders())
    found: dict[str, list[ModuleType]] = {}
    for module in list(sys.modules.values()):
        file = vars(module).get("__file__") if _is_module(module) else None
        if isinstance(file, str) and not file.startswith(installed):
            found.setdefault(os.path.realpath(file), []).append(module)
    return found


def _is_module(value: object) -> bool:
    # isinstance would read `__class__`, and deprecated objects of torch then issue a warning.
    return issubclass(type(value), ModuleType)


def _find_neighbours(content: bytes, file: Path) -> list[Path]:
    """Return the files that a single module (a pack of its own, or one of ComfyUI's) uses beside itself.

    These are the modules that it imports relatively or by their plain names, and the files whose names are in its text,
    in its own folder or in a folder that the text names.
    """
    modules: set[Path] = set()
    for module, names, imported, _ in IMPORT.findall(content):
        for name in (module or imported).decode().replace(" ", "").split(","):
            plain = name.lstrip(".")
            # One leading dot means the folder of the file, each further one the folder above.
            base = file.parent.joinpath(*[".."] * (len(name) - len(plain) - 1), *plain.split("."))
            modules |= {base, *(base / one for one in re.findall(r"\w+", names.decode()))}
    packages = {path for path in modules if (path / "__init__.py").is_file() and path != file.parent}
    texts = {text.decode(errors="replace") for text in TEXT.findall(content)} - {".", ".."}
    folders = [file.parent, *(file.parent / text for text in texts & {*_list_names(file.parent)})]
    named = {folder / text for text in texts if PurePath(text).suffix for folder in folders if not text.startswith("/")}
    files = {
        path for path in {one.with_name(f"{one.name}.py") for one in modules if one.name} | named if path.is_file()
    }
    return sorted({path.resolve() for path in packages | files} - {file.parent})


def _list_names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _is_core(path: Path, comfyui: Path) -> bool:
    inner = path.relative_to(comfyui).parts if path.is_relative_to(comfyui) else ()
    return bool(inner) and (len(inner) == 1 or inner[0] not in NOT_CORE)


def _is_elsewhere(path: Path, part: Path, comfyui: Path) -> bool:
    """Return whether the code of a module is neither in `part` nor in ComfyUI's core."""
    return not path.is_relative_to(part) and not _is_core(path, comfyui)
