"""Where each value of a composed config comes from."""

from __future__ import annotations

import functools

import pytest
from omegaconf import DictConfig, OmegaConf

from pipeline.config import compose_config
from pipeline.origins import find_origins

LIGHTNING = "experiment/qwen_image_edit_2509_lightning.yaml"


@functools.cache
def compose(*overrides: str) -> DictConfig:
    return compose_config(overrides)


def find(path: str, *overrides: str) -> str:
    config = compose(*overrides)
    return find_origins(config, config.hydra, [path])[path]


EXPERIMENT = "experiment=qwen_image_edit_2509_lightning"


@pytest.mark.parametrize(
    ("overrides", "path", "origin"),
    [
        ([], "seed", "config.yaml"),
        ([], "run.outputs", "config.yaml"),
        ([], "lora.lora_name", "lora/tiny.yaml"),
        ([], "tracking.uri", "tracking/mlflow.yaml"),
        ([], "positive.path", "inputs/tiny.yaml"),
        ([], "positive._node_", "inputs/files.yaml"),  # tiny.yaml includes it
        ([], "sampler.seed", "sampler/euler.yaml -> seed: config.yaml"),
        ([], "nothing.here", "config"),
        (["seed=7"], "seed", "command line"),
        (["seed=7"], "sampler.seed", "sampler/euler.yaml -> seed: command line"),
        (["sampler.seed=7"], "sampler.seed", "command line"),
        (["sampler.seed=7"], "sampler.steps", "sampler/euler.yaml"),
        (["sampler.steps=8"], "sampler.steps", "command line"),
        (["+sampler.noise_mask=1"], "sampler.noise_mask", "command line"),
        (["++sampler.steps=8"], "sampler.steps", "command line"),
        (["+comfyui.args.reserve_vram=2.0"], "comfyui.args.reserve_vram", "command line"),
        (["+comfyui.args.reserve_vram=2.0"], "comfyui.args", "config.yaml"),
        (["+extra={a: {b: 1}}"], "extra.a.b", "command line"),
        (["+extra_more=1"], "extra", "config"),
        (["tracking=none"], "tracking.uri", "tracking/none.yaml"),
        (["tracking=none", "tracking.uri=x"], "tracking.uri", "command line"),
        (["lora=qwen_image_lightning_4steps"], "lora.lora_name", "lora/qwen_image_lightning_4steps.yaml"),
        (["lora=qwen_image_lightning_4steps"], "unet.unet_name", "unet/tiny.yaml"),
        ([EXPERIMENT], "lora.lora_name", "lora/qwen_image_lightning_4steps.yaml"),
        ([EXPERIMENT], "lora.strength_model", LIGHTNING),
        ([EXPERIMENT], "auraflow.shift", LIGHTNING),
        ([EXPERIMENT], "sampler.steps", LIGHTNING),
        ([EXPERIMENT], "sampler.seed", "sampler/euler.yaml -> seed: config.yaml"),
        ([EXPERIMENT], "cfg_norm.pre_cfg", "cfg_norm/default.yaml"),
        ([EXPERIMENT], "positive.path", "inputs/files.yaml"),
        ([EXPERIMENT, "sampler.steps=8"], "sampler.steps", "command line"),
        ([EXPERIMENT, "sampler.steps=8"], "sampler.cfg", LIGHTNING),
        ([EXPERIMENT, "lora=tiny"], "lora.lora_name", "lora/tiny.yaml"),
        ([EXPERIMENT, "lora=tiny"], "lora.strength_model", LIGHTNING),
    ],
)
def test_where_a_value_was_set_last(overrides: list[str], path: str, origin: str) -> None:
    assert find(path, *overrides) == origin


def test_of_several_experiments_the_one_that_sets_the_value_is_named() -> None:
    assert find("auraflow.shift", "experiment=[tiny,qwen_image_edit_2509_lightning]") == LIGHTNING


def test_a_group_chosen_a_second_time_under_another_name_is_found() -> None:
    assert find("lora2.strength_model", "+lora@lora2=tiny") == "lora/tiny.yaml"


def test_every_path_is_answered_in_the_order_asked() -> None:
    paths = ["sampler.steps", "seed", "sampler.cfg"]
    config = compose("seed=7")
    origins = find_origins(config, config.hydra, paths)
    assert list(origins.items()) == [
        ("sampler.steps", "sampler/euler.yaml"),
        ("seed", "command line"),
        ("sampler.cfg", "sampler/euler.yaml"),
    ]


def test_without_hydra_only_interpolations_are_known() -> None:
    config = OmegaConf.create({"seed": 1, "a": {"x": "${seed}", "y": "${a.x}", "z": "${a.x}${seed}", "w": 1}})
    assert find_origins(config, None, ["seed", "a.x", "a.y", "a.z", "a.w", "a", "gone.x"]) == {
        "seed": "config",
        "a.x": "config -> seed: config",
        "a.y": "config -> a.x: config -> seed: config",
        "a.z": "config",  # made of several
        "a.w": "config",
        "a": "config",
        "gone.x": "config",
    }
