"""The metadata of conditionings and the entries of latents, as ComfyUI's models read them."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from latentgrid_pack import import_pack
from safetensors.torch import save_file

pack = import_pack("/packs/latentgrid_metadata")
files = pack.tensor_files
checks: Any = sys.modules[pack.__name__ + ".metadata_checks"]

COND = torch.ones(2, 4, 8)
LATENT = torch.ones(1, 16, 1, 4, 4)


def read(path: Path, metadata: dict[str, Any], cond: torch.Tensor = COND) -> dict[str, Any]:
    torch.save([cond, metadata], path / "c.pt")
    [[_, checked]] = files.read_conditioning(path / "c.pt")
    return checked


def refuse(path: Path, metadata: dict[str, Any], cond: torch.Tensor = COND) -> str:
    with pytest.raises(files.TensorFileError) as caught:
        read(path, metadata, cond)
    return str(caught.value).removeprefix(f"{path / 'c.pt'}: ")


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.int8], ids=str
)
def test_a_mask_of_0_and_1_becomes_what_models_take_for_a_mask(tmp_path, caplog, dtype):
    mask = torch.tensor([[1, 1, 1, 0]])
    made = read(tmp_path, {"attention_mask": mask.to(dtype)})["attention_mask"]
    assert made.dtype == torch.int64
    assert torch.equal(made, mask)
    assert "c.pt: metadata['attention_mask'] of 0 and 1 was" in caplog.text


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_a_mask_as_comfyui_has_it_stays(tmp_path, caplog, dtype):
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=dtype)
    made = read(tmp_path, {"attention_mask": mask})["attention_mask"]
    assert made.dtype == dtype
    assert torch.equal(made, mask)
    assert not caplog.records


def test_a_mask_that_is_meant_to_be_added_stays(tmp_path, caplog):
    for mask in (torch.tensor([[0.0, 0.0, -1e4, -1e4]]), torch.zeros(1, 4)):
        assert torch.equal(read(tmp_path, {"attention_mask": mask})["attention_mask"], mask)
    assert len(caplog.records) == 1
    assert "so models add it to their logits" in caplog.text
    style = {"attention_mask": torch.ones(1, 20, 20), "attention_mask_img_shape": (4, 4)}
    assert read(tmp_path, style)["attention_mask"].dtype == torch.float32


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (
            {"attention_mask": torch.ones(1, 5)},
            "metadata['attention_mask'] is of 5 tokens, but the conditioning has 4.",
        ),
        ({"attention_mask": torch.ones(1, 1)}, "metadata['attention_mask'] is of 1 tokens"),
        (
            {"attention_mask": torch.ones(3, 4)},
            "metadata['attention_mask'] is a batch of 3, but the conditioning is one",
        ),
        (
            {"attention_mask": torch.ones(4)},
            "metadata['attention_mask'] must be a tensor [batch, tokens], got a float32",
        ),
        ({"attention_mask": torch.tensor([[1, 1, 2, 0]])}, "metadata['attention_mask'] has values from 0 to 2."),
        ({"reference_latents_method": "indx"}, "metadata['reference_latents_method'] must be one of offset, index, "),
        ({"reference_latents_method": 1}, "metadata['reference_latents_method'] must be one of offset, index, "),
        (
            {"reference_latents": [LATENT, torch.ones(3, 16, 4, 4)]},
            "metadata['reference_latents'][1] is a batch of 3, but",
        ),
        (
            {"reference_latents": [torch.ones(16, 4, 4)]},
            "metadata['reference_latents'][0] must be a float tensor [batch, ",
        ),
        ({"reference_latents": ["a.pt"]}, "metadata['reference_latents'][0] must be a float tensor [batch, "),
        ({"reference_latents": "a.pt"}, "metadata['reference_latents'] must be a list of latents, got a str."),
        ({"strength": "0.5"}, "metadata['strength'] must be a number, got a str."),
        ({"guidance": torch.ones(2)}, "metadata['guidance'] must be a number, got a float32 tensor of shape [2]."),
        ({"start_percent": 40}, "metadata['start_percent'] must lie from 0 to 1, got 40."),
        ({"area": (64, 64, 0)}, "metadata['area'] must be (height, width, y, x)"),
        ({"mask": torch.tensor([[0, 255]])}, "metadata['mask'] has values from 0 to 255."),
        (
            {"pooled_output": torch.ones(3, 8)},
            "metadata['pooled_output'] is a batch of 3, but the conditioning is one of 2.",
        ),
        ({"pooled_output": torch.ones(8)}, "metadata['pooled_output'] must be a float tensor [batch, channels], got"),
        ({"control": None}, "metadata['control'] is an object of ComfyUI, which no file can hold"),
    ],
)
def test_what_comfyui_would_take_for_something_else_is_refused(tmp_path, metadata, said):
    assert refuse(tmp_path, metadata).startswith(said)


def test_all_faults_are_told_at_once(tmp_path):
    said = refuse(tmp_path, {"attention_mask": torch.ones(1, 5), "reference_latents_method": "x", "strength": "1"})
    assert [re.match(r"\s*metadata\['(\w+)'\]", line)[1] for line in said.splitlines()] == [
        "attention_mask",
        "reference_latents_method",
        "strength",
    ]


def test_what_has_one_meaning_only_is_converted(tmp_path, caplog):
    given = {
        "reference_latents_method": "uxo/uno",
        "reference_latents": LATENT,
        "strength": torch.tensor(0.5),
        "mask": torch.ones(1, 4, 4, dtype=torch.bool),
    }
    made = read(tmp_path, given)
    assert (made["reference_latents_method"], made["strength"]) == ("uxo", 0.5)
    assert [one.shape for one in made["reference_latents"]] == [LATENT.shape]
    assert made["mask"].dtype == torch.float32
    assert len(caplog.records) == 4


def test_what_is_right_is_said_nothing_of(tmp_path, caplog):
    given = {
        "reference_latents": [LATENT, torch.ones(2, 16, 4, 4)],
        "reference_latents_method": "negative_index",
        "pooled_output": None,
        "guidance": 3.5,
        "start_percent": 0.0,
        "end_percent": 1,
        "area": ("percentage", 0.5, 0.5, 0, 0),
        "mask": torch.ones(1, 4, 4),
    }
    assert set(read(tmp_path, given)) == set(given)
    assert not caplog.records


def test_unknown_keys_pass_with_one_line(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert read(tmp_path, {"prompt": "a cat", "lora": 1}) == {"prompt": "a cat", "lora": 1}
    (line,) = caplog.messages
    assert "metadata has 2 keys ('prompt', 'lora') that no model of ComfyUI 0.30 reads" in line


def test_every_key_that_comfyuis_models_read_is_known(comfyui_path):
    text = (comfyui_path / "comfy/model_base.py").read_text(encoding="utf-8")
    read_by_models = set(re.findall(r'kwargs(?:\.get\(|\[)"(\w+)"', text))
    # What the sampler gives a model itself, over what a conditioning has.
    given = {"cross_attn", "denoise_mask", "device", "latent_image", "latent_shapes", "noise", "seed", "x"}
    known = {*checks.OBJECTS, *checks.LATENT_LISTS, *checks.LATENTS, *checks.MASKS, *checks.PERCENTS, *checks.NUMBERS}
    known |= {*checks.OTHERS, "area", "attention_mask", "pooled_output", "reference_latents_method"}
    assert len(read_by_models) > 80
    assert read_by_models - known - given == set()


def test_every_reference_method_of_comfyui_is_known(comfyui_path):
    used = set()
    for model in ("qwen_image", "flux", "krea2"):
        text = (comfyui_path / f"comfy/ldm/{model}/model.py").read_text(encoding="utf-8")
        used |= set(re.findall(r'ref(?:_latents)?_method == "(\w+)"', text))
    assert used | {"offset"} == set(checks.REFERENCE_METHODS)


def test_a_safetensors_file_can_hold_a_reference(tmp_path):
    save_file({"cond": COND, "reference_latents": LATENT}, tmp_path / "c.safetensors")
    [[_, metadata]] = files.read_conditioning(tmp_path / "c.safetensors")
    assert torch.equal(metadata["reference_latents"][0], LATENT)


def read_latent(path: Path, entries: dict[str, Any]) -> dict[str, Any]:
    torch.save({"samples": torch.ones(2, 16, 1, 4, 4), **entries}, path / "l.pt")
    return files.read_latent(path / "l.pt")


@pytest.mark.parametrize(
    "index", [[0], [0, -1], [0, 1.5], [True, False], "01", torch.tensor([0.0, 1.0]), torch.tensor([[0, 1]]), 1]
)
def test_a_batch_index_of_a_wrong_kind_is_refused(tmp_path, index):
    with pytest.raises(
        files.TensorFileError, match=r"latent\['batch_index'\] must be a list of 2 whole numbers from 0"
    ):
        read_latent(tmp_path, {"batch_index": index})


def test_a_batch_index_becomes_a_list(tmp_path, caplog):
    assert read_latent(tmp_path, {"batch_index": (3, 5)})["batch_index"] == [3, 5]
    assert not caplog.records
    assert read_latent(tmp_path, {"batch_index": torch.tensor([3, 5])})["batch_index"] == [3, 5]
    assert "latent['batch_index'] is a tensor; made a list" in caplog.text


def test_a_noise_mask_becomes_floating(tmp_path):
    mask = torch.tensor([[[True, False]]])
    assert torch.equal(read_latent(tmp_path, {"noise_mask": mask})["noise_mask"], mask.float())
