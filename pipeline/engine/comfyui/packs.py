"""Finding and importing modules and packs of nodes, as ComfyUI does."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.engine.comfyui.start import ComfyUI

log = logging.getLogger(__name__)

# The node packs of this project. nodes/ and pipeline/ lie side by side in a checkout and know nothing of each other.
OWN_PACKS = Path(__file__).parents[3] / "nodes"

BUILT_IN = ("comfy_extras", "comfy_api_nodes")
"""ComfyUI's folders of node modules, by the names that it gives to their parents."""


class Packs:
    """Imports modules and packs, each once; `failures` has the reason of each that could not be imported.

    origins: where the classes of each module or pack came from, by class_type.
    """

    def __init__(self, comfyui: ComfyUI):
        self.failures: dict[str, str] = {}
        self.origins: dict[str, Path] = {}
        self._comfyui = comfyui
        self._loaded: set[Path] = set()

    def find(self) -> Iterator[Path]:
        """Packs named in the config (a pack, or a folder of packs), then our own, then those of ComfyUI's folders."""
        named = [Path(name).expanduser().resolve() for name in self._comfyui.settings.custom_nodes]
        for path in named:
            if path.is_file() or (path / "__init__.py").is_file():
                yield path
        folders = [path for path in named if path.is_dir() and not (path / "__init__.py").is_file()]
        for folder in [*folders, OWN_PACKS, *map(Path, self._comfyui.folder_paths.get_folder_paths("custom_nodes"))]:
            if folder.is_dir():
                yield from sorted(path for path in folder.iterdir() if _is_pack(path))

    @property
    def foreign(self) -> list[Path]:
        """The packs imported so far that are neither ComfyUI's nor our own, those that failed included: they may have
        changed ComfyUI by then."""
        comfyui = self._comfyui.installation.path
        ours = {OWN_PACKS, *(comfyui / name for name in BUILT_IN)}
        return sorted(path.resolve() for path in self._loaded if path.parent not in ours)

    async def load(self, path: Path, parent: str) -> None:
        """Import a module or a pack below `parent`, its prestartup script first. One that fails stops no other."""
        if path in self._loaded:
            return
        self._loaded.add(path)
        with _reasons_heard() as reasons:
            try:
                if parent == "custom_nodes":
                    _run_prestartup(path)
                before = set(self._comfyui.nodes.NODE_CLASS_MAPPINGS)
                done = await self._comfyui.nodes.load_custom_node(str(path), ignore=before, module_parent=parent)
                new = self._comfyui.nodes.NODE_CLASS_MAPPINGS.keys() - before
                self.origins.update(dict.fromkeys(new, path.resolve()))
            except SystemExit as ended:
                done = False
                reasons.append(f"it called exit({ended.code})")
        if not done:
            first = reasons[0] if reasons else "ComfyUI says no reason"
            error = first if isinstance(first, BaseException) else None
            self.failures[path.name] = f"{type(error).__name__}: {error}" if error else str(first)
            reason = self.failures[path.name]
            log.warning("%s could not be imported: %s; its nodes are missing", path, reason, exc_info=error)
            # Half imported, it would be found by others.
            sys.modules.pop(str(path.with_suffix("")) if path.is_file() else str(path).replace(".", "_x_"), None)


def names_class(path: Path, class_types: set[str]) -> bool:
    """Whether the text of a pack has one of the names."""
    files = path.rglob("*.py") if path.is_dir() else [path]
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    return any(name in text for text in texts for name in class_types)


def _is_pack(path: Path) -> bool:
    if path.name.endswith(".disabled") or path.name == "__pycache__":
        return False
    return (path / "__init__.py").is_file() if path.is_dir() else path.suffix == ".py"


def _run_prestartup(path: Path) -> None:
    """Run a pack's prestartup_script.py. In ComfyUI it runs before torch is imported, here before its pack is."""
    script = path / "prestartup_script.py"
    if not script.is_file():
        return
    spec = importlib.util.spec_from_file_location(str(script.with_suffix("")), script)
    assert spec and spec.loader
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:  # ComfyUI goes on as well
        log.warning("%s failed: %s: %s", script, type(error).__name__, error)


@contextmanager
def _reasons_heard() -> Iterator[list[BaseException | str]]:
    """Note why ComfyUI warns while it imports, instead of showing it: it logs an error where it catches it."""
    reasons: list[BaseException | str] = []

    def note(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.module != "nodes":
            return True
        reasons.append(sys.exc_info()[1] or record.getMessage())
        return False

    placeholder = logging.NullHandler()  # or the first log would add a handler to an unset root logger
    logging.root.addHandler(placeholder)
    logging.root.addFilter(note)
    try:
        yield reasons
    finally:
        logging.root.removeFilter(note)
        logging.root.removeHandler(placeholder)
