"""Find and import modules and packs of nodes, as ComfyUI does."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base.project import ROOT
from pipeline.engine.comfyui.start import ComfyUI

log = logging.getLogger(__name__)

# The node packs of this project. nodes/ and pipeline/ are side by side in a checkout, and neither imports the other.
OWN_PACKS = ROOT / "nodes"

BUILT_IN = ("comfy_extras", "comfy_api_nodes")
"""ComfyUI's folders of node modules, whose names it also uses as their `module_parent`."""


class Packs:
    """The modules and packs of nodes, each of which is imported once.

    failures: why a module or pack could not be imported, by its name.
    origins: the module or pack that defines a class, by class_type.
    """

    def __init__(self, comfyui: ComfyUI):
        self.failures: dict[str, str] = {}
        self.origins: dict[str, Path] = {}
        self._comfyui = comfyui
        self._loaded: set[Path] = set()

    def find(self) -> Iterator[Path]:
        """Yield the packs that the config names (packs, or folders of packs), then this project's, then ComfyUI's."""
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
        """The packs imported so far that are neither ComfyUI's nor this project's.

        Packs that could not be imported are included, because they may have changed ComfyUI before they failed.
        """
        comfyui = self._comfyui.installation.path
        own_folders = {OWN_PACKS, *(comfyui / name for name in BUILT_IN)}
        return sorted(path.resolve() for path in self._loaded if path.parent not in own_folders)

    async def load(self, path: Path, parent: str) -> None:
        """Import a module or a pack below `parent`, its prestartup script first. A failure is logged, not raised."""
        if path in self._loaded:
            return
        self._loaded.add(path)
        with _collected_reasons() as reasons:
            try:
                if parent == "custom_nodes":
                    _run_prestartup(path)
                before = set(self._comfyui.nodes.NODE_CLASS_MAPPINGS)
                succeeded = await self._comfyui.nodes.load_custom_node(str(path), ignore=before, module_parent=parent)
                new = self._comfyui.nodes.NODE_CLASS_MAPPINGS.keys() - before
                self.origins.update(dict.fromkeys(new, path.resolve()))
            except SystemExit as ended:
                succeeded = False
                reasons.append(f"it called exit({ended.code})")
        if not succeeded:
            first = reasons[0] if reasons else "ComfyUI says no reason"
            error = first if isinstance(first, BaseException) else None
            self.failures[path.name] = f"{type(error).__name__}: {error}" if error else str(first)
            reason = self.failures[path.name]
            log.warning("%s could not be imported: %s; its nodes are missing", path, reason, exc_info=error)
            # Other modules would find the half imported one.
            sys.modules.pop(str(path.with_suffix("")) if path.is_file() else str(path).replace(".", "_x_"), None)


def names_class(path: Path, class_types: set[str]) -> bool:
    """Return whether the text of a pack contains one of the names."""
    files = path.rglob("*.py") if path.is_dir() else [path]
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    return any(name in text for text in texts for name in class_types)


def _is_pack(path: Path) -> bool:
    if path.name.endswith(".disabled") or path.name == "__pycache__":
        return False
    return (path / "__init__.py").is_file() if path.is_dir() else path.suffix == ".py"


def _run_prestartup(path: Path) -> None:
    """Run a pack's prestartup_script.py. ComfyUI runs it before it imports torch, this before it imports the pack."""
    script = path / "prestartup_script.py"
    if not script.is_file():
        return
    spec = importlib.util.spec_from_file_location(str(script.with_suffix("")), script)
    assert spec and spec.loader
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:  # noqa: BLE001 (ComfyUI continues too)
        log.warning("%s failed: %s: %s", script, type(error).__name__, error)


@contextmanager
def _collected_reasons() -> Iterator[list[BaseException | str]]:
    """Yield a list that collects the reasons of ComfyUI's warnings during an import, which are not logged.

    ComfyUI logs an error where it catches it, so that the exception is at hand.
    """
    reasons: list[BaseException | str] = []

    def note(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.module != "nodes":
            return True
        reasons.append(sys.exc_info()[1] or record.getMessage())
        return False

    placeholder = logging.NullHandler()  # or the first log call would add a handler to a root logger without any
    logging.root.addHandler(placeholder)
    logging.root.addFilter(note)
    try:
        yield reasons
    finally:
        logging.root.removeFilter(note)
        logging.root.removeHandler(placeholder)
