"""Workflows in files: those that ComfyUI's own save nodes write, and others."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from workflow.making import make_node, make_workflow

from pipeline.errors import ConfigError
from pipeline.workflow import embedded
from pipeline.workflow.embedded import PNG, read_workflow_file

WORKFLOW = make_workflow([make_node(1, "Note", ["größer — 更大"])])
PROMPT = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}

IMAGE = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 255}}
AUDIO = {"class_type": "EmptyAudio", "inputs": {"duration": 1.0, "sample_rate": 48000, "channels": 2}}
LATENT = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
VIDEO = {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}}

SAVERS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "SaveImage": ([IMAGE], {"images": ["1", 0]}),
    "SaveAnimatedPNG": ([IMAGE], {"images": ["1", 0], "fps": 6.0, "compress_level": 4}),
    "SaveAnimatedWEBP": (
        [IMAGE],
        {"images": ["1", 0], "fps": 6.0, "lossless": True, "quality": 80, "method": "default"},
    ),
    "SaveLatent": ([LATENT], {"samples": ["1", 0]}),
    "SaveAudio": ([AUDIO], {"audio": ["1", 0]}),
    "SaveAudioMP3": ([AUDIO], {"audio": ["1", 0], "quality": "V0"}),
    "SaveAudioOpus": ([AUDIO], {"audio": ["1", 0], "quality": "128k"}),
    "SaveVideo": ([IMAGE, VIDEO], {"video": ["2", 0], "format": "mp4", "codec": "h264"}),
    "SaveWEBM": ([IMAGE], {"images": ["1", 0], "codec": "vp9", "fps": 8.0, "crf": 32.0}),
}


@pytest.mark.parametrize("saver", SAVERS)
def test_what_comfyuis_save_nodes_wrote_is_found(session, saver, tmp_path) -> None:
    before, inputs = SAVERS[saver]
    prompt = {str(number): node for number, node in enumerate(before, 1)}
    prompt["9"] = {"class_type": saver, "inputs": {**inputs, "filename_prefix": "saved"}}
    for extra in ({"extra_pnginfo": {"workflow": WORKFLOW}}, {}):
        folder = tmp_path / str(len(extra))
        folder.mkdir()
        session.clear()
        session.set_output_folder(folder)
        session.run(prompt, extra_data=extra)
        (file,) = [path for path in folder.iterdir() if path.name.startswith("saved")][:1]
        found = read_workflow_file(file)
        assert (found.is_ui, found.document) == ((True, WORKFLOW) if extra else (False, prompt))


def write(path: Path, content: bytes | str | Any) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_json_file_is_kept_as_it_is(tmp_path, encoding) -> None:
    text = "  " + json.dumps(WORKFLOW, ensure_ascii=False, indent=7) + "\r\n"
    found = read_workflow_file(write(tmp_path / "x.anything", text.encode(encoding)))
    assert (found.text, found.document, found.is_ui) == (text, WORKFLOW, True)


@pytest.mark.parametrize("body", [PROMPT, {"prompt": PROMPT}, {"prompt": PROMPT, "client_id": "x", "extra_data": {}}])
def test_a_prompt_is_found_alone_and_in_the_body_of_a_request(tmp_path, body) -> None:
    found = read_workflow_file(write(tmp_path / "x.json", body))
    assert (found.document, found.is_ui) == (PROMPT, False)


def test_numbers_that_json_does_not_know_are_read(tmp_path) -> None:
    text = '{"1": {"class_type": "C", "inputs": {"x": NaN, "y": Infinity}}}'
    assert read_workflow_file(write(tmp_path / "x.json", text)).document["1"]["inputs"]["y"] == float("inf")


def make_png(kind: bytes, body: bytes) -> bytes:
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return PNG + chunk


TEXT = json.dumps(WORKFLOW, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"tEXt", b"workflow\0" + TEXT),
        (b"zTXt", b"workflow\0\0" + zlib.compress(json.dumps(WORKFLOW).encode())),
        (b"iTXt", b"workflow\0\0\0\0\0" + TEXT),
        (b"iTXt", b"workflow\0\1\0en\0key\0" + zlib.compress(TEXT)),
        (b"comf", b"workflow\0" + TEXT),
    ],
)
def test_all_kinds_of_texts_of_a_png_are_read(tmp_path, kind, body) -> None:
    assert read_workflow_file(write(tmp_path / "x.png", make_png(kind, body))).document == WORKFLOW


def test_the_workflow_counts_more_than_the_prompt_unless_it_cannot_be_read(tmp_path) -> None:
    prompt = b"prompt\0" + json.dumps(PROMPT).encode()
    both = make_png(b"tEXt", prompt) + make_png(b"tEXt", b"workflow\0" + TEXT)[len(PNG) :]
    assert read_workflow_file(write(tmp_path / "a.png", both)).is_ui
    broken = make_png(b"tEXt", prompt) + make_png(b"tEXt", b"workflow\0{}")[len(PNG) :]
    assert read_workflow_file(write(tmp_path / "b.png", broken)).document == PROMPT


def test_a_model_with_a_workflow_in_its_header(tmp_path) -> None:
    header = json.dumps({"__metadata__": {"workflow": json.dumps(WORKFLOW)}}).encode()
    file = write(tmp_path / "x.safetensors", struct.pack("<Q", len(header)) + header)
    assert read_workflow_file(file).document == WORKFLOW


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}", "has no workflow"),
        ('{"a": 1}', "has no workflow"),
        ('{"prompt": {"1": {}}}', "has no workflow"),
        ("{broken", "has no workflow"),
        (
            make_png(b"tEXt", b"parameters\0a star"),
            "has no workflow of ComfyUI in it. Give",
        ),
        (make_png(b"zTXt", b"workflow\0\0no zlib"), "is damaged"),
        (struct.pack("<Q", 10) + b"{", "is damaged"),
        (b"RIFF\0\0\0\0WEBPno", "cannot be read"),
        (b"neither this nor that", "is no JSON and no picture, video, sound or model"),
        (b"", "is no JSON"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, reason) -> None:
    file = write(tmp_path / "x.bin", content)
    with pytest.raises(ConfigError) as raised:
        read_workflow_file(file)
    assert str(raised.value).startswith(f"{file}: {reason}")


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name) -> None:
    with pytest.raises(ConfigError, match="cannot be read: "):
        read_workflow_file(tmp_path / name)


@pytest.mark.parametrize(("size", "is_read"), [(0, True), (1, False), (2**62, False)])
def test_a_header_is_read_up_to_a_size(tmp_path, monkeypatch, size, is_read) -> None:
    """safetensors itself reads none above 100 MB; a file that claims more is none of its files."""
    assert embedded.MAX_HEADER == 100 * 1024**2
    header = json.dumps({"__metadata__": {"workflow": json.dumps(WORKFLOW)}}).encode()
    monkeypatch.setattr(embedded, "MAX_HEADER", len(header))
    path = write(tmp_path / "a.safetensors", struct.pack("<Q", min(2**62, len(header) + size)) + header)
    if is_read:
        assert read_workflow_file(path).document == WORKFLOW
    else:
        with pytest.raises(ConfigError, match="workflow"):
            read_workflow_file(path)
