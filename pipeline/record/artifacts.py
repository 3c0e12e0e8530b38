"""The files of a run's output folder. Only this module knows their names and how they are written.

    config.yaml       the composed config
    prompt.json       the graph that ran, in ComfyUI's API format
    workflow.json     the same graph in the format of ComfyUI's GUI
    graph.svg         a picture of the graph
    <node>.latent     a LATENT: safetensors, as ComfyUI's SaveLatent writes it and LoadLatent reads it
    <node>.pt         the same latent as {"samples": tensor}, on request
    <node>.png        a preview of the latent
    record.json       the sha256 of every file of the record and of the model files (only with MLflow)
    run.log           the log (written by Hydra's logging)

The .latent and .png files embed the graph as ComfyUI's savers do, so dropping one onto ComfyUI's canvas opens the
graph. A file is written completely or not at all. The functions that write a file raise OutputError if they cannot.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.base.whole_file import written_whole
from pipeline.errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

CONFIG = "config.yaml"
PROMPT = "prompt.json"
WORKFLOW = "workflow.json"
GRAPH = "graph.svg"
RECORD = "record.json"
LOG = "run.log"


def open_folder(folder: Path) -> Path:
    """Create the output folder if necessary and return it. Raises OutputError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputError(f"the output folder cannot be written, got '{folder}': {error.strerror}") from error
    return folder


def write_text(folder: Path, name: str, text: str) -> Path:
    """Write a text file and return its path."""
    with _written_whole(folder / name) as path:
        path.write_text(text, encoding="utf-8")
    return folder / name


def remove_record(folder: Path) -> None:
    """Remove the record of an earlier run from the folder, if there is one. Raises OutputError."""
    path = folder / RECORD
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {error.strerror or error}") from error


def write_prompt(folder: Path, prompt: Mapping[str, Any]) -> Path:
    """Write the graph in ComfyUI's API format."""
    return write_text(folder, PROMPT, write_json(prompt))


def write_workflow(folder: Path, workflow: Mapping[str, Any]) -> Path:
    """Write the graph in the format of ComfyUI's GUI."""
    return write_text(folder, WORKFLOW, write_json(workflow))


def write_json(content: Mapping[str, Any]) -> str:
    """Return a mapping as indented JSON with a final newline."""
    return json.dumps(content, indent=2) + "\n"


def list_embedded(prompt: Mapping[str, Any], workflow: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that ComfyUI's savers embed in files, by key: the GUI opens `workflow`, else `prompt`."""
    return {"prompt": json.dumps(prompt), "workflow": json.dumps(workflow)}


def write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write a record as record.json."""
    return write_text(folder, RECORD, write_json(record))


def list_files(folder: Path) -> list[Path]:
    """Return the files that nodes and latentgrid have written into a folder, without the log and hidden files."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != LOG)
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def write_latent(folder: Path, node: str, samples: torch.Tensor, embedded: Mapping[str, str]) -> Path:
    """Write samples [batch, channels, (frames,) height, width] as ComfyUI's SaveLatent does (nodes.py)."""
    import torch
    from safetensors.torch import save

    tensors = {"latent_tensor": samples.detach().cpu().contiguous(), "latent_format_version_0": torch.tensor([])}
    with _written_whole(folder / f"{node}.latent") as path:
        # save_file makes files that only their owner may read, but another user may decode them.
        path.write_bytes(save(tensors, metadata=dict(embedded)))
    return folder / f"{node}.latent"


def write_pt(folder: Path, node: str, samples: torch.Tensor) -> Path:
    """Write samples as a `.pt` file that holds {"samples": tensor}."""
    return write_tensors(folder, f"{node}.pt", {"samples": samples})


def write_tensors(folder: Path, name: str, value: Any) -> Path:
    """Write tensors in containers of plain values with torch.save.

    Of a tensor that is a view, only the elements that it shows are written.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(_detach(value), buffer)  # writing to a file directly, it raises RuntimeError if the disk is full
    with _written_whole(folder / name) as path:
        path.write_bytes(buffer.getbuffer())
    return folder / name


def _detach(value: Any) -> Any:
    """Return the value with copies of its tensors on the CPU, because torch.save writes the whole storage of a view."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _detach(one) for key, one in value.items()}
    return [_detach(one) for one in value] if isinstance(value, list | tuple) else value


def write_copy(folder: Path, name: str, source: BinaryIO) -> tuple[Path, str]:
    """Write the rest of an open file; return the path and the sha256 of what was written."""
    digest = hashlib.sha256()
    with _written_whole(folder / name) as path, path.open("wb") as target:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            target.write(chunk)
    return folder / name, digest.hexdigest()


def write_picture(folder: Path, node: str, pixels: np.ndarray, embedded: Mapping[str, str]) -> Path:
    """Write pixels, uint8 [height, width, 3], as a PNG with embedded texts."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, text in embedded.items():
        info.add_text(key, text)
    with _written_whole(folder / f"{node}.png") as path:
        Image.fromarray(pixels).save(path, format="PNG", pnginfo=info, compress_level=4)
    return folder / f"{node}.png"


def write_image(folder: Path, name: str, image: Image.Image) -> Path:
    """Write an image as a PNG with fast compression, because a growing image is written again and again."""
    with _written_whole(folder / name) as path:
        image.save(path, format="PNG", compress_level=1)
    return folder / name


@contextlib.contextmanager
def _written_whole(target: Path) -> Iterator[Path]:
    """Yield a path to write to, as `written_whole` does, but raise OutputError instead of OSError."""
    try:
        with written_whole(target) as beside:
            yield beside
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
