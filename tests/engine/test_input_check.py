"""What the files of a graph tell before a model is loaded, on the graphs that latentgrid runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import PROBES
from safetensors.torch import load_file, save_file

from pipeline import run
from pipeline.config.read import compose_config, read_config
from pipeline.errors import ConfigError
from pipeline.models.sets import MODELS
from pipeline.models.tiny import UNET, tiny_folder

COND = torch.ones(1, 4, 3584)


def check(session, *overrides: str):
    read = read_config(compose_config(["experiment=tiny", *PROBES, *overrides]))
    assert not read.problems
    return session.check(read.graph, read.run.outputs)


def refuse(session, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(session, *overrides)
    return str(caught.value).splitlines()


@pytest.fixture
def save(tmp_path):
    def save(name: str, value) -> str:
        torch.save(value, tmp_path / f"{name}.pt")
        return str(tmp_path / f"{name}.pt")

    return save


@pytest.fixture
def loras(session):
    """ComfyUI's folder of LoRAs, emptied afterwards of what was put there."""
    folder = Path(session.comfyui.model_folders["loras"][0])
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


def test_everything_that_does_not_fit_is_told_at_once(session, save):
    reference = torch.ones(1, 1, 1, 4, 4)
    said = refuse(
        session,
        f"positive.path={save('p', [torch.ones(1, 4, 4096), {'reference_latents': [reference]}])}",
        f"negative.path={save('n', torch.ones(1, 4, 32))}",
        f"latent.path={save('l', torch.ones(1, 1, 1, 4, 4))}",
        "sampler.steps=0",
    )
    assert sorted(said) == [
        f"latent.path: 1 channel, but {UNET} takes 16",
        f"negative.path: 32 channels, but {UNET} takes 3584",
        f"positive.path: 4096 channels, but {UNET} takes 3584",
        f"positive.path: reference_latents[0] has 1 channel, but {UNET} takes 16",
        "sampler.steps: must be at least 1, got 0",
    ]


def test_a_caption_of_the_demo_model_is_none_for_another(session):
    said = refuse(session, "inputs=demo", "unet=tiny", "lora=tiny")
    assert said == [f"{name}: 32 channels, but {UNET} takes 3584" for name in ("positive", "negative")]


def test_the_model_is_found_behind_bypassed_nodes(session, save):
    bypassed = [f"{node}._bypass_=true" for node in ("lora", "auraflow", "cfg_norm")]
    wrong = f"negative.path={save('n', torch.ones(1, 4, 4096))}"
    assert refuse(session, wrong, *bypassed) == [f"negative.path: 4096 channels, but {UNET} takes 3584"]


def test_batches_that_would_be_cut_are_refused(session, save):
    files = [
        f"positive.path={save('p', [torch.cat([COND] * 2), {'reference_latents': [torch.ones(2, 16, 1, 4, 4)]}])}",
        f"negative.path={save('n', [COND, {'reference_latents': [torch.ones(3, 16, 1, 4, 4)]}])}",
    ]
    said = refuse(session, *files, f"latent.path={save('l', torch.ones(3, 16, 1, 4, 4))}")
    advice = "is a batch of 2, but the latent is one of 3. Give 1 or 3"
    assert said == [f"positive.path: the conditioning {advice}", f"positive.path: reference_latents[0] {advice}"]
    check(session, *files, f"latent.path={save('l', torch.ones(6, 16, 1, 4, 4))}")


def test_an_empty_latent_of_any_channels_is_right(session, save):
    check(session, f"latent.path={save('l', torch.zeros(1, 4, 4, 4))}")


def test_a_packed_latent_is_named_with_its_input(session, save):
    path = save("l", {"samples": torch.ones(1, 4, 64)})
    (said,) = refuse(session, f"latent.path={path}")
    assert said.startswith(f"latent.path: {path}: samples are packed as diffusers packs latents")
    check(session, f"latent.path={path}", "latent.height=32", "latent.width=32")


def test_a_model_of_unknown_architecture_is_passed_over(session, save, loras):
    folder = loras.parent / "diffusion_models"
    folder.mkdir(exist_ok=True)
    weights = load_file(MODELS / "diffusion_models/demo_shapes.safetensors")
    save_file({f"unknown.{name}": one for name, one in weights.items()}, folder / "unknown.safetensors")
    try:
        check(session, "unet.unet_name=unknown.safetensors", f"positive.path={save('p', torch.ones(1, 4, 99))}")
    finally:
        (folder / "unknown.safetensors").unlink()


def test_a_model_file_that_is_none(session, loras):
    (loras / "page.safetensors").write_text("<!DOCTYPE html><title>Log in</title>")
    (said,) = refuse(session, "lora.lora_name=page.safetensors")
    assert said.startswith(f"lora.lora_name: {loras / 'page.safetensors'} is an HTML page, not a model")
    whole = (MODELS / "loras/demo_outline.safetensors").read_bytes()
    (loras / "short.safetensors").write_bytes(whole[:-100])
    (said,) = refuse(session, "lora.lora_name=short.safetensors")
    assert re.search(r"lora_name: .* is cut short: it has \d+ of \d+ bytes", said)
    check(session, "lora.lora_name=short.safetensors", "lora._bypass_=true")


def test_a_lora_of_another_architecture_is_reported(session, loras, caplog):
    check(session)
    assert not caplog.records
    shutil.copy(MODELS / "loras/demo_outline.safetensors", loras / "other.safetensors")
    check(session, "lora.lora_name=other.safetensors")
    said = f"none of the 120 keys of other.safetensors fits {UNET} (another architecture?), so it changes nothing"
    assert caplog.messages == [f"lora: {said}"]


def test_no_file_has_to_be_right_where_none_is_needed(session, save):
    read = read_config(compose_config(["experiment=tiny", *PROBES, f"positive.path={save('p', torch.ones(1, 4, 9))}"]))
    session.check(read.graph, read.run.outputs, needs_files=False)


# What is converted gives what the right form gives.


def sample(folder: Path, *overrides: str) -> torch.Tensor:
    common = ["experiment=tiny", *PROBES, "tracking=none", "sampler.steps=1"]
    latent = run(overrides=[*common, *overrides], folder=folder).latent
    assert latent is not None
    return latent


def with_metadata(changed):
    [[cond, metadata]] = torch.load(tiny_folder() / "positive.pt", weights_only=True)
    return [cond, {**metadata, **changed}]


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32], ids=str)
def test_a_mask_of_another_dtype_gives_the_latent_of_int64(session, save, tmp_path, dtype):
    mask = torch.tensor([[1] * 9 + [0] * 7])
    right = sample(tmp_path / "a", f"positive.path={save('a', with_metadata({'attention_mask': mask}))}")
    none = sample(tmp_path / "b")
    made = sample(tmp_path / "c", f"positive.path={save('c', with_metadata({'attention_mask': mask.to(dtype)}))}")
    assert torch.equal(made, right)
    assert not torch.equal(made, none)


def test_a_reference_without_frames_gives_the_latent_of_one_with_one(session, save, tmp_path, caplog):
    [[_, metadata]] = torch.load(tiny_folder() / "positive.pt", weights_only=True)
    flat = [one.squeeze(2) for one in metadata["reference_latents"]]
    path = save("p", with_metadata({"reference_latents": flat}))
    made = sample(tmp_path / "a", f"positive.path={path}")
    assert torch.equal(made, sample(tmp_path / "b"))
    told = [message for message in caplog.messages if "made 5-D" in message]
    assert told == ["sampler.positive: latents in its metadata were 4-D; made 5-D, of one frame, as the model's are"]


def test_a_packed_latent_gives_the_latent_of_the_unpacked_one(session, save, tmp_path):
    latent = torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(1))
    tokens = latent.reshape(1, 16, 2, 2, 3, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, 6, 64)
    partly = "sampler.denoise=0.5"
    right = sample(tmp_path / "a", partly, f"latent.path={save('a', latent)}")
    size = ("latent.height=32", "latent.width=48")
    assert torch.equal(sample(tmp_path / "b", partly, f"latent.path={save('b', tokens)}", *size), right)
