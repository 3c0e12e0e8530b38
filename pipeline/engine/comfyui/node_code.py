"""Which code a node runs: what tells it from any other version of it, and what that code reads besides its inputs."""

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
"""In the text of Python files: imports, the names of environment variables, which may be constants, and texts."""

CORE = ("comfy", "comfy_api", "comfy_config", "comfy_execution", "utils")
"""ComfyUI's folders of code that nodes share; the modules of nodes are told one by one."""

NOT_CORE = ("custom_nodes", "comfy_extras", "comfy_api_nodes")
"""Folders of ComfyUI whose modules count only for the nodes that use them."""

IGNORED_FOLDERS = frozenset(("__pycache__",))
IGNORED_SUFFIXES = (".pyc", ".log", ".DS_Store")
LARGE = 16 << 20
"""Bytes from which a file in the folder of a pack, a checkpoint say, counts by size and times instead of content."""


@dataclass(frozen=True)
class Code:
    """The code of a pack or of a module of nodes.

    sha256: over every file of it, data files included, and over the files outside of it that it imports.
    packages: name and version of the installed packages that it imports.
    variables: the environment variables whose names stand in it.
    data: the states of its data files and of its folders, by path: data is read while nodes run, and may change.
    """

    sha256: str
    packages: Mapping[str, str]
    variables: frozenset[str]
    data: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)


def read_code(root: Path, comfyui: Path) -> Code:
    """Return the code of a pack (a folder or a file) or of one of ComfyUI's node modules.

    Python files count as this process first saw them, as it has imported them by then; data files as they are now.
    """
    code = _read_code(root, comfyui)
    if any(read_state(path) != state for path, state in code.data.items()):
        _read_code.cache_clear()
        code = _read_code(root, comfyui)
    return code


@functools.cache
def _read_code(root: Path, comfyui: Path) -> Code:
    """Read what `read_code` returns.

    `comfyui` is ComfyUI's folder. Imports are followed by what the files say and by what their modules hold. They end
    at installed packages, and at ComfyUI's core, which `comfyui.code` covers.
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
        # Before they are listed, also those without files; for a single module there are none.
        data |= {folder: read_state(folder) for folder in _list_folders(part)}
        for file in list_files(part):
            if file.suffix != ".py":
                data[file] = read_state(file)  # before it is read
            content = _read_python(file) if file.suffix == ".py" else read_content(file)
            name = file.relative_to(part if part.is_dir() else part.parent).as_posix()
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
            if file.suffix != ".py":
                continue
            variables |= find_variables(content)
            for path in _locate_imports(content, _list_held_modules(file)):
                if is_installed(path) and (found := find_packages(path)):
                    packages |= found
                elif _is_apart(path, part, comfyui):
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
    """Return the names of the environment variables that the text of a Python file reads."""
    if b"environ" not in content and b"getenv" not in content:
        return set()
    return {name.decode() for found in VARIABLE.findall(content) for name in found if name}


def find_source(cls: type) -> Path | None:
    """Return the file that a class was defined in, None if nothing says so.

    A pack may have loaded it without registering its module, which `inspect.getsourcefile` depends on; the code of its
    function knows too.
    """
    with contextlib.suppress(TypeError, OSError):
        if found := inspect.getsourcefile(cls):
            return Path(found).resolve()
    own = vars(cls)
    # What is inherited may stand in another file, so it comes last.
    functions = [own.get(getattr(cls, "FUNCTION", "")), *own.values(), getattr(cls, getattr(cls, "FUNCTION", ""), None)]
    for one in functions:
        code = getattr(inspect.unwrap(getattr(one, "__func__", one)) if callable(one) else one, "__code__", None)
        if code is not None and Path(code.co_filename).is_file():
            return Path(code.co_filename).resolve()
    return None


@functools.cache
def read_core(comfyui: Path) -> Code:
    """Return the code of ComfyUI's core, which is the same for all nodes; packages it imports are not followed."""
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
    """Yield a file, or the files of a folder that are code or what code reads: no hidden folders, nothing compiled."""
    if part.is_file():
        yield part
        return
    yield from (part / name for name in _walk_code(part))


def _walk_code(folder: Path) -> Iterator[str]:
    names = walk_files(folder, IGNORED_FOLDERS, hidden=False)
    return (name for name in names if not name.endswith(IGNORED_SUFFIXES))


def read_content(file: Path | str) -> bytes:
    """Return the content of a file; of a large one what tells its state; of one that cannot be read why."""
    try:
        with Path(file).open("rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_size > LARGE:
                return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode()
            return opened.read()
    except OSError as error:
        return f"cannot be read: {error.strerror}".encode()


def _locate_imports(content: bytes, held: set[str]) -> list[Path]:
    """Where the modules are that a file imports, and those that its module holds.

    Relative ones are part of the pack, or `_find_neighbours`'s.
    """
    found: set[Path | None] = {locate_module(name) for name in held}
    for module, names, many, computed in IMPORT.findall(content):
        for name in (module or computed or many).decode().split(","):
            if not name.strip() or name.strip().startswith("."):
                continue
            module_name = name.split()[0]
            path = locate_module(module_name)
            found.add(path)
            if names and not (path and is_installed(path)):
                found |= {locate_module(f"{module_name}.{one}") for one in re.findall(r"\w+", names.decode())}
    return sorted(path for path in found if path)


def _list_held_modules(file: Path) -> set[str]:
    """The names of the modules that the modules of a file hold: some are imported under computed names."""
    modules = _map_modules(len(sys.modules)).get(str(file), [])
    return {held.__name__ for module in modules for held in list(vars(module).values()) if _is_module(held)}


@functools.lru_cache(1)
def _map_modules(count: int) -> dict[str, list[ModuleType]]:
    """The loaded modules by their files, without those of installed packages; `count` says how many are loaded."""
    installed = tuple(f"{folder}{os.sep}" for folder in list_site_folders())
    found: dict[str, list[ModuleType]] = {}
    for module in list(sys.modules.values()):
        file = vars(module).get("__file__") if _is_module(module) else None
        if isinstance(file, str) and not file.startswith(installed):
            found.setdefault(os.path.realpath(file), []).append(module)
    return found


def _is_module(value: object) -> bool:
    # isinstance would ask for `__class__`, at which deprecated objects of torch warn.
    return issubclass(type(value), ModuleType)


def _find_neighbours(content: bytes, file: Path) -> list[Path]:
    """The files beside a module that is a pack of its own, or one of ComfyUI's: those that it imports relative to
    itself or by their plain names, and those whose names stand in its text, also as name of a folder and name."""
    modules: set[Path] = set()
    for module, names, many, _ in IMPORT.findall(content):
        for name in (module or many).decode().replace(" ", "").split(","):
            plain = name.lstrip(".")
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


def _is_apart(path: Path, part: Path, comfyui: Path) -> bool:
    """Whether the code of a module is neither in `part` nor in ComfyUI's core."""
    return not path.is_relative_to(part) and not _is_core(path, comfyui)
