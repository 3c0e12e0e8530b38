"""The files of an output folder: whole or not at all, and readable by ComfyUI."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import OutputError
from pipeline.record import artifacts

PROMPT = {"sampler": {"class_type": "KSampler", "inputs": {"seed": 1}}}
WORKFLOW = {"version": 0.4, "nodes": [{"id": "sampler"}]}
EMBEDDED = artifacts.list_embedded(PROMPT, WORKFLOW)


def test_comfyuis_load_latent_opens_the_latent(session, tmp_path):
    samples = torch.randn(1, 16, 1, 8, 8)
    path = artifacts.write_latent(tmp_path, "sampler", samples, EMBEDDED)
    session.comfyui.folder_paths.set_input_directory(str(tmp_path))
    load_latent = session.comfyui.nodes.LoadLatent
    assert load_latent.INPUT_TYPES()["required"]["latent"][0] == ["sampler.latent"]
    assert torch.equal(load_latent().load(path.name)[0]["samples"], samples)


def test_the_latent_and_the_picture_embed_the_graph(tmp_path):
    from safetensors import safe_open

    latent = artifacts.write_latent(tmp_path, "sampler", torch.zeros(1, 4, 8, 8), EMBEDDED)
    with safe_open(latent, "pt") as file:
        found = file.metadata()
    assert {key: json.loads(text) for key, text in found.items()} == {"prompt": PROMPT, "workflow": WORKFLOW}
    picture = artifacts.write_picture(tmp_path, "sampler", np.zeros((8, 8, 3), np.uint8), EMBEDDED)
    with Image.open(picture) as image:
        found = image.text
    assert {key: json.loads(text) for key, text in found.items()} == {"prompt": PROMPT, "workflow": WORKFLOW}


def test_files_follow_the_umask(tmp_path):
    """safetensors' own writer makes files that only their owner can read."""
    text = artifacts.write_text(tmp_path, "a.txt", "a")
    latent = artifacts.write_latent(tmp_path, "a", torch.zeros(1), EMBEDDED)
    assert latent.stat().st_mode == text.stat().st_mode


def test_a_pt_file_holds_samples_and_nothing_else(tmp_path):
    whole = torch.randn(4, 16, 8, 8)
    path = artifacts.write_pt(tmp_path, "sampler", whole[:1])
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"samples"}
    assert torch.equal(content["samples"], whole[:1])
    assert path.stat().st_size < 2 * whole[:1].nbytes + 4096  # the view's storage is not saved whole


def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(tmp_path):
    artifacts.write_text(tmp_path, "a.txt", "before")
    with pytest.raises(TypeError):
        artifacts.write_text(tmp_path, "a.txt", 3)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_whoever_reads_a_file_that_is_written_again_sees_it_whole(tmp_path):
    """It is replaced, and not written over: a contact sheet is read while it grows."""
    long, short = "before" * 10_000, "after"
    path = artifacts.write_text(tmp_path, "a.txt", long)
    with path.open() as reader:
        assert reader.read(6) == "before"
        artifacts.write_text(tmp_path, "a.txt", short)
        assert "before" + reader.read() == long
    assert path.read_text() == short


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"the output folder cannot be written, got '.*file/below': Not a directory"):
        artifacts.open_folder(tmp_path / "file" / "below")


def test_an_opened_folder_is_empty(tmp_path):
    assert list(artifacts.open_folder(tmp_path / "a" / "b").iterdir()) == []


def test_what_the_system_refuses_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"/gone/a\.txt: cannot be written: No such file or directory"):
        artifacts.write_text(tmp_path / "gone", "a.txt", "text")
