"""Latents in the packed layout of diffusers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from latentgrid_pack import import_pack
from safetensors.torch import save_file

pack = import_pack("/packs/latentgrid_packed")
Load: Any = pack.NODE_CLASS_MAPPINGS["LatentgridLoadLatent"]
LATENT = torch.randn(2, 16, 6, 4, generator=torch.Generator().manual_seed(0))


def pack_latent(latent: torch.Tensor) -> torch.Tensor:
    """Token by token: a patch of 2x2, its channels first, as diffusers' `_pack_latents` orders them."""
    _, _, height, width = latent.shape
    tokens = [
        latent[:, :, row : row + 2, column : column + 2].flatten(1)
        for row in range(0, height, 2)
        for column in range(0, width, 2)
    ]
    return torch.stack(tokens, 1)


def save(path: Path, latent: Any) -> str:
    torch.save(latent, path / "l.pt")
    return str(path / "l.pt")


def test_a_packed_latent_is_unpacked_to_the_size_that_is_given(tmp_path, caplog):
    path = save(tmp_path, {"samples": pack_latent(LATENT)})
    assert Load.VALIDATE_INPUTS(path, 48, 32) is True
    (latent,) = Load().load(path, 48, 32)
    assert torch.equal(latent["samples"], LATENT)
    assert latent["samples"].is_contiguous()
    assert "the packed latent [2, 6, 64] was unpacked to [2, 16, 6, 4]" in caplog.text
    (other,) = Load().load(path, 32, 48)  # the same file with another size is read again
    assert other["samples"].shape == (2, 16, 4, 6)


def test_a_packed_latent_of_a_safetensors_file(tmp_path):
    save_file(
        {"latent_tensor": pack_latent(LATENT), "latent_format_version_0": torch.tensor([])}, tmp_path / "l.latent"
    )
    (latent,) = Load().load(str(tmp_path / "l.latent"), 48, 32)
    assert torch.equal(latent["samples"], LATENT)


def test_a_packed_latent_is_named_and_its_size_never_guessed(tmp_path):
    said = Load.VALIDATE_INPUTS(save(tmp_path, torch.ones(1, 16, 64)))
    assert "samples are packed as diffusers packs latents, [batch, tokens, 16 channels * 2x2]" in said
    assert "a square one has height=64 width=64." in said
    assert "unsqueeze" not in said
    said = Load.VALIDATE_INPUTS(save(tmp_path, torch.ones(1, 15, 64)))
    assert "Give this node the height and width of the picture, in pixels, to unpack it." in said


def test_a_latent_without_a_batch_may_look_packed(tmp_path):
    assert "If it is [channels, height, width], add" in Load.VALIDATE_INPUTS(save(tmp_path, torch.ones(16, 64, 64)))


def test_a_size_of_another_picture_is_refused(tmp_path):
    said = Load.VALIDATE_INPUTS(save(tmp_path, torch.ones(1, 6, 64)), 64, 64)
    assert "6 patches of 2x2, but a picture of height=64 and width=64 has 4x4 = 16." in said


@pytest.mark.parametrize("side", [-16, "48", 48.0, True])
def test_a_size_that_is_none_is_refused(tmp_path, side):
    said = Load.VALIDATE_INPUTS(save(tmp_path, torch.ones(1, 6, 64)), side, 32)
    assert said == f"height must be a whole number of pixels, got {side!r}."


def test_a_size_that_another_node_will_give_is_not_known_yet(tmp_path):
    assert Load.VALIDATE_INPUTS(save(tmp_path, torch.ones(1, 6, 64)), None, 32) is True


def test_a_size_does_nothing_to_a_latent_that_is_not_packed(tmp_path):
    (latent,) = Load().load(save(tmp_path, LATENT), 512, 512)
    assert torch.equal(latent["samples"], LATENT)
