"""Find the files that the constants of a node name: model files, input files, folders, and files within texts.

Where it is uncertain whether a text names a file, the file counts. A needless entry costs a hash, but a missing one
would let a result be reused although a file that it was made from has changed.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pipeline.base.file_state import walk_files
from pipeline.graph.model import Link, Node
from pipeline.graph.signature import Signature

MOST_FILES = 1000
"""How many files a folder may have to be compared; for a larger one a comparison would take too long."""

IN_TEXT = {
    "embeddings": re.compile(r"embedding:\s*((?:\\[()]|[^\s,()\[\]<>:])+)"),
    "loras": re.compile(r"<lora:([^:>]+)"),
}
"""How texts name model files, by model folder.

Embeddings are named as in ComfyUI's `SDTokenizer.tokenize_with_weights` (comfy/sd1_clip.py), LoRAs as in the prompt
nodes of many packs.
"""

MODEL_SUFFIXES = frozenset((".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".pkl", ".bin", ".gguf", ".onnx"))
# Names of inputs in which even a plain word is a path, and of inputs that name what is written.
FOLDER_INPUT = re.compile(r"dir|folder|path|file", re.IGNORECASE)
OUTPUT_INPUT = re.compile(r"prefix", re.IGNORECASE)


@dataclass(frozen=True)
class NamedFiles:
    """The files that the constants of a node name.

    models, inputs: the model files and the other files by input: `unet_name`, or `model_path/unet/config.json` where
    one constant names several files.
    countless: the inputs that name a folder with more than `MOST_FILES` files.
    """

    models: Mapping[str, Path]
    inputs: Mapping[str, Path]
    countless: tuple[str, ...] = ()


class FileFinder:
    """A finder of the files that constants name; `folder_paths` is ComfyUI's module of that name.

    Example:
        found = FileFinder(comfyui.folder_paths).find(node, signature)
        found.models  # {"unet_name": Path("/models/diffusion_models/wan.safetensors")}
    """

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
                if not found and PurePath(text).suffix.lower() in MODEL_SUFFIXES:
                    found = self._find_anywhere(text)
                # A class that lists model folders may have other lists of files as well.
                others = {} if found else self._find_input(name, text)
                if max(len(found), len(others)) > MOST_FILES:
                    countless.append(name)
                    found, others = {}, {}
                models |= {_join(name, label): path for label, path in {**found, **self._find_in_text(text)}.items()}
                inputs |= {_join(name, label): path for label, path in others.items()}
        return NamedFiles(models, inputs, tuple(countless))

    def _find_choice(self, text: str, folders: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
        """Yield the files of model folders that a choice stands for, with a label for each.

        It may be the name of a file, else of a folder (DiffusersLoader), else a short name: VAELoader reads
        `taesd_encoder.*` and `taesd_decoder.*` for `taesd`.
        """
        for number, folder in enumerate(folders):
            label = "" if number == 0 else folder
            if path := self._folder_paths.get_full_path(folder, text):
                yield label, Path(path)
                continue
            for root in map(Path, self._folder_paths.get_folder_paths(folder)):
                if text and (root / text).is_dir():
                    yield from ((f"{folder}/{place}", path) for place, path in _list_folder(root / text).items())
            named = [file for file in self._folder_paths.get_filename_list(folder) if file.startswith(_prefixes(text))]
            yield from self._locate(folder, named).items()

    def _find_in_text(self, text: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder, pattern in IN_TEXT.items():
            for named in pattern.findall(text):
                names = {named, named.replace("\\(", "(").replace("\\)", ")")}
                listed = self._folder_paths.get_filename_list(folder)
                found |= self._locate(folder, [file for file in listed if names & _list_names(file)])
        return found

    def _locate(self, folder: str, files: list[str]) -> dict[str, Path]:
        """Return files of a model folder by `FOLDER/FILE`, without links that lead nowhere, as in ComfyUI."""
        paths = {file: self._folder_paths.get_full_path(folder, file) for file in files}
        return {f"{folder}/{file}": Path(path) for file, path in paths.items() if path}

    def _find_anywhere(self, text: str) -> dict[str, Path]:
        """Return the model files that a text names in any model folder, though it is no choice of its class."""
        folders = [name for name in self._folder_paths.folder_names_and_paths if name != "custom_nodes"]
        return {label: path for folder in folders for label, path in self._locate(folder, [text]).items()}

    def _find_input(self, name: str, text: str) -> dict[str, Path]:
        """Return the files and folders that the lines of a text name.

        A relative path is looked up in the working directory and in ComfyUI's input directory, in both because it is
        not known where the class looks first. A plain word counts only for inputs whose names say that they take a
        path, because a prompt may happen to be the name of a file.
        """
        found: dict[str, Path] = {}
        for number, line in enumerate(map(str.strip, text.splitlines())):
            # A separator alone is no path: nodes that join texts take one.
            is_path = bool(line.strip("/\\~.")) and ("/" in line or "\\" in line or line.startswith("~"))
            if line and (is_path or PurePath(line).suffix or FOLDER_INPUT.search(name)):
                for label, path in self._find_path(line, not OUTPUT_INPUT.search(name)).items():
                    found[_join(str(number), label) if number else label] = path
        return found

    def _find_path(self, text: str, may_be_folder: bool) -> dict[str, Path]:
        paths: dict[Path, str] = {}
        for label, locate in (("", _expand), ("input", self._folder_paths.get_annotated_filepath)):
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # not a path, or none of that directory
                path = Path(locate(text)).resolve()
                if path.is_file() or (path.is_dir() and may_be_folder):
                    paths.setdefault(path, label if paths else "")
        found: dict[str, Path] = {}
        for path, label in paths.items():
            places = {"": path} if path.is_file() else _list_folder(path)
            found |= {_join(label, place) if label and place else label or place: one for place, one in places.items()}
        return found


def _expand(text: str) -> Path:
    return Path(text).expanduser()


def _prefixes(text: str) -> tuple[str, ...]:
    return (f"{text}_", f"{text}.") if text else ()


def _list_names(file: str) -> set[str]:
    """Return the names by which a text may refer to a file of a model folder."""
    path = PurePath(file)
    return {file, path.with_suffix("").as_posix(), path.name, path.stem}


def _list_texts(value: Any) -> Iterator[str]:
    """Yield the texts in a constant: itself, or those in lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _list_texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _list_texts(one)


def _list_folder(folder: Path) -> dict[str, Path]:
    """Return the files below a folder by their paths within it, at most one more than `MOST_FILES`."""
    return {place: folder / place for place in itertools.islice(walk_files(folder), MOST_FILES + 1)}


def _join(name: str, label: str) -> str:
    return f"{name}/{label}" if label else name
