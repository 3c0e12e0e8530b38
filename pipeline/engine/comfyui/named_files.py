"""The files that the constants of a node name: model files, input files, whole folders, and files named within texts.

When it is unsure whether a text names a file, the file counts: a needless entry costs a hash, a missing one would let a
result be reused although what it was made from has changed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pipeline.graph.model import Link, Node
from pipeline.graph.signature import Signature

MOST_FILES = 1000
"""Files of one folder that are looked at; of a larger one nobody can say cheaply whether it is still the same."""

IN_TEXT = {"embeddings": re.compile(r"embedding:\s*([^\s,()\[\]<>:]+)"), "loras": re.compile(r"<lora:([^:>]+)")}
"""How texts name model files, by model folder: as in ComfyUI's `SDTokenizer.tokenize_with_weights` (comfy/sd1_clip.py),
and as prompt nodes of many packs do."""

MODEL_SUFFIXES = frozenset((".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".pkl", ".bin", ".gguf", ".onnx"))
FOLDER_INPUT = re.compile(r"dir|folder|path", re.IGNORECASE)
OUTPUT_INPUT = re.compile(r"prefix", re.IGNORECASE)


@dataclass(frozen=True)
class NamedFiles:
    """Paths by input (`unet_name`, or `model_path/unet/config.json` where one constant names several files).

    countless: the inputs that name a folder with more than `MOST_FILES` files.
    """

    models: Mapping[str, Path]
    inputs: Mapping[str, Path]
    countless: tuple[str, ...] = ()


class FileFinder:
    """Finds the files that constants name; `folder_paths` is ComfyUI's module of that name."""

    def __init__(self, folder_paths: Any):
        self._folder_paths = folder_paths

    def find(self, node: Node, signature: Signature) -> NamedFiles:
        """Return the files that the constants of a node name."""
        models: dict[str, Path] = {}
        inputs: dict[str, Path] = {}
        countless: list[str] = []
        for name, value in node.inputs.items():
            if isinstance(value, Link):
                continue
            spec = signature.inputs.get(name)
            is_choice = bool(signature.folders and spec and spec.choices)
            for text in _list_texts(value):
                found = dict(self._find_choice(text, signature.folders)) if is_choice else {}
                found |= self._find_in_text(text)
                if not is_choice and not found and PurePath(text).suffix.lower() in MODEL_SUFFIXES:
                    found |= self._find_anywhere(text)
                models |= {_join(name, label): path for label, path in found.items()}
                if not is_choice:
                    others = self._find_input(name, text)
                    if len(others) > MOST_FILES:
                        countless.append(name)
                    else:
                        inputs |= {_join(name, label): path for label, path in others.items()}
        return NamedFiles(models, inputs, tuple(countless))

    def _find_choice(self, text: str, folders: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
        """A file of a model folder, else a folder in it (DiffusersLoader), else the files that a short name stands for
        (VAELoader reads `taesd_encoder.*` and `taesd_decoder.*` for `taesd`)."""
        for number, folder in enumerate(folders):
            label = "" if number == 0 else folder
            if path := self._folder_paths.get_full_path(folder, text):
                yield label, Path(path)
                continue
            for root in map(Path, self._folder_paths.get_folder_paths(folder)):
                if text and (root / text).is_dir():
                    yield from _list_folder(root / text).items()
            for file in self._folder_paths.get_filename_list(folder):
                if text and file.startswith((f"{text}_", f"{text}.")):
                    yield file, Path(self._folder_paths.get_full_path(folder, file))

    def _find_in_text(self, text: str) -> dict[str, Path]:
        found = {}
        for folder, pattern in IN_TEXT.items():
            for named in pattern.findall(text):
                for file in self._folder_paths.get_filename_list(folder):
                    path = PurePath(file)
                    if named in (file, path.with_suffix("").as_posix(), path.name, path.stem):
                        found[f"{folder}/{file}"] = Path(self._folder_paths.get_full_path(folder, file))
        return found

    def _find_anywhere(self, text: str) -> dict[str, Path]:
        """A model file that a text names without being a choice of its class."""
        folders = [name for name in self._folder_paths.folder_names_and_paths if name != "custom_nodes"]
        paths = {folder: self._folder_paths.get_full_path(folder, text) for folder in folders}
        return {f"{folder}/{text}": Path(path) for folder, path in paths.items() if path}

    def _find_input(self, name: str, text: str) -> dict[str, Path]:
        """The file or folder that a text names: absolute, or in the working directory, or in ComfyUI's input directory.

        A plain word is taken for what it says: a prompt may happen to be the name of something.
        """
        is_path = "/" in text or "\\" in text or text.startswith("~")
        if "\n" in text or not text.strip() or not (PurePath(text).suffix or is_path or FOLDER_INPUT.search(name)):
            return {}
        for locate in (lambda text: Path(text).expanduser(), self._folder_paths.get_annotated_filepath):
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # no path at all, or none of that directory
                path = Path(locate(text)).resolve()
                if path.is_file():
                    return {"": path}
                if path.is_dir() and not OUTPUT_INPUT.search(name):
                    return _list_folder(path)
        return {}


def _list_texts(value: Any) -> Iterator[str]:
    """The texts in a constant: itself, or those in lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _list_texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _list_texts(one)


def _list_folder(folder: Path) -> dict[str, Path]:
    """The files below a folder by their place in it; one more than `MOST_FILES` if there are more."""
    found: dict[str, Path] = {}
    for path in folder.rglob("*"):
        if len(found) > MOST_FILES:
            break
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path
    return found


def _join(name: str, label: str) -> str:
    return f"{name}/{label}" if label else name
