"""Read the workflow from a file: a JSON file, or a file into which a save node of ComfyUI wrote it.

The kind of a file is recognised by its content, not by its name.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, Problem
from pipeline.workflow.ui_format import is_ui_format

PNG = b"\x89PNG\r\n\x1a\n"
MAX_HEADER = 100 * 1024**2
"""The longest header of a safetensors file that its format allows."""

KEYS = ("workflow", "prompt")
"""The keys under which save nodes write the workflow in the GUI's format and the prompt. The first one found counts."""

TAGGED = re.compile(r"^(workflow|prompt)\s*:\s*(?=\{)")


@dataclass(frozen=True)
class WorkflowFile:
    """A workflow found in a file: its JSON text, unchanged, and the document in that text.

    `document` is in the GUI's format if `is_ui` is true, else it is a prompt in the API format.
    """

    text: str
    document: Mapping[str, Any]
    is_ui: bool


def read_workflow_file(path: Path) -> WorkflowFile:
    """Return the workflow in a JSON, PNG, APNG, WebP, AVIF, safetensors, latent, video or audio file.

    Raises ConfigError if the file cannot be read or contains no workflow.

    Example:
        read_workflow_file(Path("ComfyUI_00001_.png")).document
    """
    try:
        with path.open("rb") as file:
            head = file.read(64 * 1024)
        texts = list(_list_texts(path, head))
    except OSError as error:
        raise _refuse(path, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, struct.error, zlib.error) as error:
        raise _refuse(path, f"is damaged: {error}") from error
    found = [document for text in texts if (document := _read_document(text))]
    if found:
        return found[0]
    what = "no workflow and no prompt" if texts else "no workflow"
    raise _refuse(
        path,
        f"has {what} of ComfyUI in it. Give a workflow saved by ComfyUI (.json), or a picture, video, sound, latent or "
        "model that one of its save nodes wrote, unchanged by other programs",
    )


def _refuse(path: Path, message: str) -> ConfigError:
    return ConfigError([Problem("no_workflow", str(path), message)])


def _list_texts(path: Path, head: bytes) -> list[str]:
    """Return the JSON texts in a file, the workflow before the prompt."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return [path.read_bytes().decode("utf-8-sig")]
    if head.startswith(PNG):
        found = dict(_read_png(path.read_bytes()))
    elif (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] in (b"ftypavif", b"ftypavis"):
        found = dict(_read_exif(path))
    elif len(head) > 8 and head[8:9] == b"{":
        found = _read_safetensors(path)
    else:
        found = dict(_read_media(path))
    return [found[key] for key in KEYS if key in found]


def _read_document(text: str) -> WorkflowFile | None:
    """Return the workflow in a JSON text, or None if it is not one. The text may contain NaN."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if is_ui_format(document):
        return WorkflowFile(text, document, is_ui=True)
    if isinstance(document, Mapping) and isinstance(document.get("prompt"), Mapping):
        document = document["prompt"]  # the body of a request to ComfyUI's server
    if isinstance(document, Mapping) and document and all(map(_is_api_node, document.values())):
        return WorkflowFile(text, document, is_ui=False)
    return None


def _is_api_node(info: Any) -> bool:
    return isinstance(info, Mapping) and "class_type" in info


def _read_png(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield keyword and text of the text chunks of a PNG, also of those after the image data.

    The chunk type `comf` is that of ComfyUI's SaveAnimatedPNG.
    """
    position = len(PNG)
    while position + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + size]
        position += size + 12
        if kind in (b"tEXt", b"comf", b"zTXt", b"iTXt"):
            key, _, rest = body.partition(b"\0")
            yield key.decode("latin-1").lower(), _read_chunk(kind, rest)


def _read_chunk(kind: bytes, rest: bytes) -> str:
    if kind == b"zTXt":
        return zlib.decompress(rest[1:]).decode("latin-1")
    if kind == b"iTXt":
        is_compressed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        return (zlib.decompress(text) if is_compressed else text).decode("utf-8")
    try:
        return rest.decode("utf-8")
    except UnicodeDecodeError:
        return rest.decode("latin-1")


def _read_exif(path: Path) -> Iterator[tuple[str, str]]:
    """Yield key and JSON text of the EXIF entries of the form `workflow:{...}`, whatever their tag."""
    from PIL import ExifTags, Image

    with Image.open(path) as image:
        exif = image.getexif()
    for value in [*exif.values(), *exif.get_ifd(ExifTags.IFD.Exif).values()]:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        text = text.removeprefix("UNICODE\0").removeprefix("ASCII\0\0\0").strip("\0 ")
        if tagged := TAGGED.match(text):
            yield tagged[1], text[tagged.end() :]
        elif text.startswith("{"):
            yield from _split_mapping(text)


def _split_mapping(text: str) -> Iterator[tuple[str, str]]:
    document = json.loads(text)
    for key in KEYS:
        if isinstance(document, Mapping) and key in document:
            value = document[key]
            yield key, value if isinstance(value, str) else json.dumps(value)


def _read_safetensors(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size)) if size <= MAX_HEADER else {}
    return {key: str(value) for key, value in (header.get("__metadata__") or {}).items()}


def _read_media(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the tags of a video or audio file and those of its streams."""
    import av

    # PyAV before 19 refuses tags that are not UTF-8, except with this option; later versions keep them as surrogates.
    options: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
    try:
        with av.open(str(path), **options) as media:
            tags = [dict(media.metadata), *(dict(stream.metadata) for stream in media.streams)]
    except av.FFmpegError as error:
        raise _refuse(path, f"is no JSON and no picture, video, sound or model that can be read ({error})") from error
    for key, value in (tag for one in tags for tag in one.items()):
        yield key.lower(), value.encode(errors="surrogateescape").decode(errors="replace")
