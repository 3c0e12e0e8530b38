"""What is wrong with the overrides of a command line: all of it at once, and nothing that Hydra would take."""

from __future__ import annotations

import pytest
from hydra.core.global_hydra import GlobalHydra

from pipeline.config.overrides import find_override_problems
from pipeline.config.read import compose_config
from pipeline.errors import ConfigError

CHOICES_OF_LORA = "demo, qwen_image_lightning_4steps, tiny"
QUOTING = "cannot be read as an override. Write path.to.value=VALUE, and quote special characters: 'path=\"a,b\"'"


def find(*overrides: str) -> list[tuple[str, str]]:
    return [(problem.code, str(problem)) for problem in find_override_problems(overrides)]


def find_keys(*overrides: str) -> list[str]:
    return [problem.where for problem in find_override_problems(overrides)]


# Each wrong override is explained, and all of them at once: a compose takes a fifth of a second, so many share one.


def test_what_cannot_be_read_and_keys_that_do_not_exist() -> None:
    overrides = {
        "seed": ("bad_override", f"seed: {QUOTING}"),
        "seed 8=1": ("bad_override", f"seed 8=1: {QUOTING}"),
        "sampler.stpes=8": ("unknown_input", "sampler.stpes: is not in the config; did you mean 'sampler.steps'?"),
        "smapler.steps=8": ("unknown_input", "smapler.steps: is not in the config; did you mean 'sampler.steps'?"),
        "steps=8": ("unknown_input", "steps: is not in the config; did you mean 'sampler.steps'?"),
        "sede=8": ("unknown_input", "sede: is not in the config; did you mean 'seed'?"),
        "zzz=1": ("unknown_input", "zzz: is not in the config. To add it, write +zzz=1"),
        "qqq.a=[1,2]": ("unknown_input", "qqq.a: is not in the config. To add it, write +qqq.a=[1,2]"),
        "comfyui.args.reserve_vram=2.0": (
            "unknown_input",
            "comfyui.args.reserve_vram: is not in the config. To add it, write +comfyui.args.reserve_vram=2.0",
        ),
        "run.outputs.5=lora": ("unknown_input", "run.outputs.5: is not in the config; did you mean 'run.outputs'?"),
        "~sampler.sceduler": (
            "unknown_input",
            "sampler.sceduler: is not in the config; did you mean 'sampler.scheduler'?",
        ),
    }
    fine = ["sampler.cfg=2", "+sampler.noise_mask=1", "hydra.run.dir=x"]
    assert find(*overrides, *fine) == list(overrides.values())


def test_choices_that_do_not_exist_and_keys_as_of_the_default_choices() -> None:
    assert find(
        "sampler.stpes=8", "lora=tiny,nope,zzz", "sampler=eular", "experiment=[tiny,qqq]", "lora.model=[a,b]"
    ) == [
        ("value_not_in_list", f"lora: 'nope' is not a choice of this group. Choose from {CHOICES_OF_LORA}"),
        ("value_not_in_list", f"lora: 'zzz' is not a choice of this group. Choose from {CHOICES_OF_LORA}"),
        ("value_not_in_list", "sampler: 'eular' is not a choice of this group; did you mean 'euler'?"),
        (
            "value_not_in_list",
            "experiment: 'qqq' is not a choice of this group. Choose from qwen_image_edit_2509_lightning, tiny",
        ),
        ("unknown_input", "sampler.stpes: is not in the config; did you mean 'sampler.steps'?"),
    ]


def test_what_cannot_be_deleted_is_not_to_be_added() -> None:
    ((code, message),) = find("~zzz")
    assert code == "unknown_input"
    assert message.startswith("zzz: is not in the config")
    assert "+~" not in message


# What Hydra takes


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "seed=7",
            "sampler.model=[lora,MODEL]",
            "lora=qwen_image_lightning_4steps",
            "lora._bypass_=true",
            "positive.text=a red circle",
            "comfyui.models=[/models,/more]",
            "tracking=none",
            "+sampler.noise_mask=null",
            "++sampler.steps=8",
            "++sampler.other=1",
            "~sampler.cfg",
            "+comfyui.args.reserve_vram=2.0",
            "hydra.run.dir=x",
        ],
        ["experiment=[tiny]", "~lora", "inputs=files"],
        ["+lora@lora2=tiny", "lora2.strength_model=0.5", "run.outputs.0=lora", "sampler={steps: 8}"],
    ],
    ids=["values", "groups", "a second LoRA and an item of a list"],
)
def test_it_is_not_complained_about(overrides: list[str]) -> None:
    compose_config(overrides)
    assert find(*overrides) == []


@pytest.mark.parametrize("overrides", [["comfyui.args={reserve_vram: 2.0}"], ["~lora", "lora.model=[a,b]"]])
def test_what_hydra_refuses_is_complained_about(overrides: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config(overrides)
    assert list(caught.value.problems) == find_override_problems(overrides) != []


def test_a_group_that_is_chosen_already_needs_no_plus() -> None:
    ((_, said),) = find("+experiment=tiny")
    assert said == "experiment: is chosen in conf/ already, so no + is needed: experiment=tiny"


def test_sweeps_are_not_complained_about_and_hydra_is_left_as_it_was() -> None:
    assert (
        find(
            "lora=tiny,qwen_image_lightning_4steps",
            "sampler.steps=4,8",
            "lora._bypass_=true,false",
            "seed=range(1,5)",
            "sampler.cfg=choice(1.0,2.5)",
            "auraflow.shift=interval(1,4)",
        )
        == []
    )
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("other", "keys"),
    [
        ("lora=glob(*)", ["sampler.stpes"]),
        ("experiment=null", ["experiment", "sampler.stpes"]),  # Hydra takes no null for a group
        ("lora=null", ["lora", "sampler.stpes"]),
        ("+experiment=tiny", ["experiment", "sampler.stpes"]),  # it is in the defaults already
        ("++lora=tiny", ["lora", "sampler.stpes"]),  # no group can be forced
    ],
)
def test_whatever_else_is_given_a_typo_is_found(other: str, keys: list[str]) -> None:
    assert find_keys(other, "sampler.stpes=1") == keys
