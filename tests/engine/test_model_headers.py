"""What the headers of model files tell."""

from __future__ import annotations

import struct

import pytest
import torch
from safetensors.torch import save_file

from pipeline.engine.model_headers import (
    ModelFacts,
    ModelFileDamage,
    count_fitting,
    describe_model,
    find_page,
    read_shapes,
)
from pipeline.models.sets import MODELS
from pipeline.models.tiny import LORA, UNET, tiny_folder

DEMO = MODELS / "diffusion_models/demo_shapes.safetensors"
DEMO_LORA = MODELS / "loras/demo_outline.safetensors"


def tiny(name: str):
    return read_shapes(str(tiny_folder() / "models" / name))


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_qwen_image_and_wan_are_known_with_any_prefix(session, prefix):
    for shapes, latent, text in ((tiny(f"diffusion_models/{UNET}"), 16, 3584), (read_shapes(str(DEMO)), 16, 32)):
        facts = describe_model({prefix + name: shape for name, shape in shapes.items()})
        assert (facts.latent_channels, facts.text_channels) == (latent, text)
        assert facts.weights.keys() == shapes.keys()


def test_the_latent_of_a_wan_model_is_what_it_gives():
    shapes = {**read_shapes(str(DEMO)), "patch_embedding.weight": (256, 36, 1, 2, 2)}  # pictures to video
    assert describe_model(shapes).latent_channels == 16


FLUX = {
    "img_in.weight": (3072, 384),  # Fill: latent, masked picture and mask
    "txt_in.weight": (3072, 4096),
    "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
    "final_layer.linear.weight": (64, 3072),
}
SD15 = {
    "input_blocks.0.0.weight": (320, 9, 3, 3),  # for inpainting
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "out.2.weight": (4, 320, 3, 3),
}


def test_flux_and_stable_diffusion_are_known():
    assert describe_model(FLUX) == ModelFacts(16, 4096)
    assert describe_model({**FLUX, "final_layer.linear.weight": (128, 6144)}) == ModelFacts(None, 4096)  # FLUX.2
    assert describe_model({f"model.diffusion_model.{name}": shape for name, shape in SD15.items()}) == ModelFacts(
        4, 768
    )


def test_nothing_is_said_of_other_models(session):
    qwen = tiny(f"diffusion_models/{UNET}")
    for missing in (
        "txt_norm.weight",
        "img_in.weight",
        "proj_out.weight",
        "transformer_blocks.0.attn.add_q_proj.weight",
    ):
        assert describe_model({name: shape for name, shape in qwen.items() if name != missing}) == ModelFacts()
    assert describe_model({**qwen, "proj_out.weight": (128, 3072)}) == ModelFacts()  # Mage-Flow
    assert describe_model({}) == ModelFacts()


def test_packed_weights_tell_no_shape(tmp_path):
    save_file({"a": torch.zeros(2, 2, dtype=torch.uint8), "b": torch.zeros(2, 2)}, tmp_path / "m.safetensors")
    assert read_shapes(str(tmp_path / "m.safetensors")) == {"b": (2, 2)}


def test_damaged_files_are_named_for_what_they_are(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(64, 64)}, path)
    whole = path.read_bytes()
    header = struct.pack("<Q", 2)
    for content, said in (
        (whole[:-1], f"is cut short: it has {len(whole) - 1} of {len(whole)} bytes"),
        (whole[:40], "is not a safetensors file, its header of"),
        (b"\x80\x02}q", "is not a safetensors file, its header of"),
        (header + b"[]", "is not a safetensors file, its header cannot be read"),
        (header + b"{]", "is not a safetensors file, its header cannot be read"),
        (b"", "is not a safetensors file"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelFileDamage, match=said):
            read_shapes(str(path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n<!DOCTYPE html><html>", "is an HTML page, not a model"),
        (b"<html lang='en'>", "is an HTML page, not a model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"", "is empty"),
    ],
)
def test_what_a_download_left_instead_of_a_model(tmp_path, content, said):
    (tmp_path / "m.ckpt").write_bytes(content)
    assert find_page(str(tmp_path / "m.ckpt")).startswith(said)
    assert find_page(str(DEMO)) is None


def halves(name: str, rows: int, columns: int):
    return {f"{name}.lora_up.weight": (rows, 4), f"{name}.lora_down.weight": (4, columns), f"{name}.alpha": ()}


@pytest.mark.parametrize(
    "name",
    [
        "transformer_blocks.0.attn.to_q",
        "transformer.transformer_blocks.0.attn.to_q",
        "diffusion_model.transformer_blocks.0.attn.to_q",
        "lycoris_transformer_blocks_0_attn_to_q",
        "lora_unet_transformer_blocks_0_attn_to_q",
        "lora_transformer_transformer_blocks_0_attn_to_q",
    ],
)
def test_a_lora_of_qwen_image_fits_in_every_spelling(session, name):
    weights = describe_model(tiny(f"diffusion_models/{UNET}")).weights
    assert count_fitting(halves(name, 3072, 3072), weights) == 2
    assert count_fitting(halves(name, 1536, 1536), weights) == 0  # of another size
    assert count_fitting({f"{name}.lora_A.default.weight": (4, 3072)}, weights) == 1
    assert count_fitting({f"{name}.lokr_w1": (4, 4)}, weights) == 1


def test_real_loras_fit_their_own_model_and_no_other(session):
    qwen = describe_model(tiny(f"diffusion_models/{UNET}")).weights
    wan = describe_model(read_shapes(str(DEMO))).weights
    qwen_lora, wan_lora = tiny(f"loras/{LORA}"), read_shapes(str(DEMO_LORA))
    assert count_fitting(qwen_lora, qwen) == 8
    assert count_fitting(wan_lora, wan) == 2 * len(wan_lora) // 3
    assert count_fitting(qwen_lora, wan) == count_fitting(wan_lora, qwen) == 0
    of_wan_fun = {name.replace("diffusion_model.", "lora_unet__", 1): shape for name, shape in wan_lora.items()}
    assert count_fitting(of_wan_fun, wan) == 2 * len(wan_lora) // 3
    beginning = "diffusion_model.blocks."
    sd15 = {name.replace(beginning, "lora_unet_down_blocks_0_"): shape for name, shape in wan_lora.items()}
    assert count_fitting(sd15, wan) == count_fitting(sd15, qwen) == 0
