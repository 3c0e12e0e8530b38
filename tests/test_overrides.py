"""What is wrong with the overrides of a command line: all of it at once, and nothing that Hydra would take."""

from __future__ import annotations

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from pipeline.config import compose_config
from pipeline.overrides import find_override_problems

CHOICES_OF_LORA = "qwen_image_lightning_4steps, tiny"
QUOTING = "cannot be read as an override. Write path.to.value=VALUE, and quote special characters: 'path=\"a,b\"'"


def find(*overrides: str) -> list[str]:
    return [str(problem) for problem in find_override_problems(overrides)]


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("sampler.stpes=8", "unknown_input", "sampler.stpes: is not in the config; did you mean 'sampler.steps'?"),
        ("smapler.steps=8", "unknown_input", "smapler.steps: is not in the config; did you mean 'sampler.steps'?"),
        ("steps=8", "unknown_input", "steps: is not in the config; did you mean 'seed'?"),
        ("sede=8", "unknown_input", "sede: is not in the config; did you mean 'seed'?"),
        ("zzz=1", "unknown_input", "zzz: is not in the config. To add it, write +zzz=1"),
        ("zzz.a=[1,2]", "unknown_input", "zzz.a: is not in the config. To add it, write +zzz.a=[1,2]"),
        ("~sampler.stpes", "unknown_input", "sampler.stpes: is not in the config; did you mean 'sampler.steps'?"),
        (
            "sampler=eular",
            "value_not_in_list",
            "sampler: 'eular' is not a choice of this group; did you mean 'euler'?",
        ),
        (
            "lora=nope",
            "value_not_in_list",
            f"lora: 'nope' is not a choice of this group. Choose from {CHOICES_OF_LORA}",
        ),
        (
            "hydra/launcher=zzz",
            "value_not_in_list",
            "hydra/launcher: 'zzz' is not a choice of this group. Choose from basic",
        ),
        ("seed", "bad_override", f"seed: {QUOTING}"),
        ("seed 8=1", "bad_override", f"seed 8=1: {QUOTING}"),
    ],
)
def test_a_wrong_override_is_explained(override: str, code: str, message: str) -> None:
    (problem,) = find_override_problems([override])
    assert (problem.code, str(problem)) == (code, message)


def test_what_cannot_be_deleted_is_not_to_be_added() -> None:
    (message,) = find("~zzz")
    assert message.startswith("zzz: is not in the config")
    assert "+~" not in message


FINE = [
    "seed=7",
    "sampler.steps=8",
    "sampler.model=[lora,MODEL]",
    "lora._bypass_=true",
    "positive.path=x.pt",
    "comfyui.models=[/models,/more]",
    "tracking=none",
    "experiment=qwen_image_edit_2509_lightning",
    "experiment=[tiny]",
    "lora=qwen_image_lightning_4steps",
    "+sampler.noise_mask=null",
    "++sampler.steps=8",
    "++sampler.noise_mask=1",
    "~sampler.steps",
    "~lora",
    "+comfyui.args.reserve_vram=2.0",
    "+lora@lora2=tiny",
    "hydra.run.dir=x",
    "run.outputs.0=lora",
]
REFUSED = ["sampler.stpes=8", "~sampler.stpes", "lora=nope", "seed", "comfyui.args={reserve_vram: 2.0}", "lora=null"]


@pytest.mark.parametrize("override", FINE)
def test_what_hydra_takes_is_not_complained_about(override: str) -> None:
    compose_config([override])
    assert find(override) == []


@pytest.mark.parametrize("override", REFUSED)
def test_what_hydra_refuses_is_explained(override: str) -> None:
    with pytest.raises((HydraException, ValueError)):
        compose_config([override])
    assert find(override) != []


@pytest.mark.parametrize(
    "overrides",
    [
        ["sampler.steps=4,8"],
        ["lora=tiny,qwen_image_lightning_4steps", "lora._bypass_=true,false"],
        ["seed=range(1,5)"],
        ["sampler.cfg=choice(1.0,2.5)"],
        ["sampler.cfg=interval(1,4)"],
        ["lora=glob(*)"],
    ],
)
def test_sweeps_are_not_complained_about(overrides: list[str]) -> None:
    assert find(*overrides) == []


def test_each_choice_of_a_sweep_is_looked_at() -> None:
    assert find("lora=tiny,nope,zzz", "sampler.steps=4,8") == [
        f"lora: {name!r} is not a choice of this group. Choose from {CHOICES_OF_LORA}" for name in ("nope", "zzz")
    ]


def test_all_of_them_are_reported_at_once() -> None:
    """A wrong choice leaves open which keys there are: those of the default choice are taken for granted."""
    assert find("sampler.stpes=8", "seed", "lora=nope", "sampler.cfg=2", "auraflow.shfit=3") == [
        f"seed: {QUOTING}",
        f"lora: 'nope' is not a choice of this group. Choose from {CHOICES_OF_LORA}",
        "sampler.stpes: is not in the config; did you mean 'sampler.steps'?",
        "auraflow.shfit: is not in the config; did you mean 'auraflow.shift'?",
    ]


@pytest.mark.parametrize("other", ["experiment=null", "lora=glob(*)", "lora=null", "~lora", "lora=tiny,nope"])
def test_whatever_else_is_given_a_typo_is_found(other: str) -> None:
    assert "sampler.stpes: is not in the config; did you mean 'sampler.steps'?" in find(other, "sampler.stpes=1")


def test_the_keys_are_those_of_the_chosen_groups() -> None:
    assert find("+lora@lora2=tiny", "lora2.strength_model=0.5") == []
    assert find("inputs=files", "positive.path=x.pt", "experiment=tiny") == []


def test_a_key_of_a_deleted_group_is_not_there() -> None:
    with pytest.raises(HydraException):
        compose_config(["~lora", "lora.strength_model=0.5"])
    assert find("~lora", "lora.strength_model=0.5") != []


def test_no_override_is_no_problem_and_hydra_is_left_as_it_was() -> None:
    assert find() == []
    assert not GlobalHydra.instance().is_initialized()
