"""Where each value of a composed config comes from."""

from __future__ import annotations

import functools

import pytest
from omegaconf import DictConfig, OmegaConf

from pipeline.config.origins import find_origins
from pipeline.config.read import compose_config

LIGHTNING = "experiment/qwen_image_edit_2509_lightning.yaml"


@functools.cache
def compose(*overrides: str) -> DictConfig:
    return compose_config(overrides)


def find(path: str, *overrides: str) -> str:
    config = compose(*overrides)
    return find_origins(config, config.hydra, [path])[path]


DEFAULT: tuple[str, ...] = ()
TINY = ("inputs=tiny",)
CHANGED = (
    "seed=7",
    "lora=qwen_image_lightning_4steps",
    "tracking=none",
    "tracking.experiment_name=x",
    "sampler.steps=8",
    "++sampler.cfg=8",
    "+sampler.noise_mask=1",
    "+comfyui.args.reserve_vram=2.0",
    "+extra={a: {b: 1}}",
    "+lora@lora2=tiny",
)
EXPERIMENT = ("experiment=qwen_image_edit_2509_lightning", "sampler.seed=7", "sampler.steps=8", "lora=tiny")


@pytest.mark.parametrize(
    ("overrides", "path", "origin"),
    [
        (DEFAULT, "seed", "config.yaml"),
        (DEFAULT, "run.outputs", "config.yaml"),
        (DEFAULT, "lora.lora_name", "lora/demo.yaml"),
        (DEFAULT, "tracking.uri", "tracking/mlflow.yaml"),
        (DEFAULT, "positive.text", "inputs/demo.yaml"),
        (TINY, "positive.path", "inputs/tiny.yaml"),
        (TINY, "positive._node_", "inputs/files.yaml"),  # tiny.yaml includes it
        (DEFAULT, "sampler.seed", "sampler/euler.yaml -> seed: config.yaml"),
        (DEFAULT, "nothing.here", "config"),
        (CHANGED, "seed", "command line"),
        (CHANGED, "sampler.seed", "sampler/euler.yaml -> seed: command line"),
        (CHANGED, "sampler.steps", "command line"),
        (CHANGED, "sampler.cfg", "command line"),
        (CHANGED, "sampler.noise_mask", "command line"),
        (CHANGED, "sampler.scheduler", "sampler/euler.yaml"),
        (CHANGED, "comfyui.args.reserve_vram", "command line"),
        (CHANGED, "comfyui.args", "config.yaml"),
        (CHANGED, "extra.a.b", "command line"),
        (CHANGED, "ext", "config"),
        (CHANGED, "seed_2", "config"),
        (CHANGED, "tracking.uri", "tracking/none.yaml"),
        (CHANGED, "tracking.experiment_name", "command line"),
        (CHANGED, "lora.lora_name", "lora/qwen_image_lightning_4steps.yaml"),
        (CHANGED, "unet.unet_name", "unet/demo.yaml"),
        (CHANGED, "lora2.strength_model", "lora/tiny.yaml"),
        (EXPERIMENT, "auraflow.shift", LIGHTNING),
        (EXPERIMENT, "lora.strength_model", LIGHTNING),
        (EXPERIMENT, "lora.lora_name", "lora/tiny.yaml"),  # the command line chose another than the experiment
        (EXPERIMENT, "unet.unet_name", "unet/qwen_image_edit_2509.yaml"),
        (EXPERIMENT, "sampler.cfg", LIGHTNING),
        (EXPERIMENT, "sampler.steps", "command line"),
        (EXPERIMENT, "sampler.seed", "command line"),
        (EXPERIMENT, "cfg_norm.pre_cfg", "cfg_norm/default.yaml"),
        (EXPERIMENT, "positive.path", "inputs/files.yaml"),
    ],
)
def test_where_a_value_was_set_last(overrides: tuple[str, ...], path: str, origin: str) -> None:
    assert find(path, *overrides) == origin


def test_of_several_choices_of_a_group_the_last_that_sets_the_value_is_named() -> None:
    several = ("experiment=[qwen_image_edit_2509_lightning,tiny]", "lora=[tiny,qwen_image_lightning_4steps]")
    assert compose(*several).lora.lora_name == "Qwen-Image-Lightning-4steps-V2.0.safetensors"
    assert find("lora.lora_name", *several) == "lora/qwen_image_lightning_4steps.yaml"
    assert find("auraflow.shift", *several) == LIGHTNING


def test_every_path_is_answered_in_the_order_asked() -> None:
    paths = ["sampler.scheduler", "seed", "sampler.cfg"]
    config = compose(*CHANGED)
    origins = find_origins(config, config.hydra, paths)
    assert list(origins.items()) == [
        ("sampler.scheduler", "sampler/euler.yaml"),
        ("seed", "command line"),
        ("sampler.cfg", "command line"),
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
