"""The short way to a job's config gives what Hydra's own way gives."""

from __future__ import annotations

import itertools

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from pipeline.config.names import register_names
from pipeline.config.read import CONF
from pipeline.sweep.compose import SweepComposer

SWEEPS = {
    "values": (["sampler.steps"], ["4", "8"]),
    "three": (["sampler.steps", "lora.strength_model", "seed"], ["1", "2", "3"]),
    "a text": (["positive.text"], ["a red circle", "'a star, on blue'", '""']),
    "a group": (["lora", "seed"], ["demo", "qwen_image_lightning_4steps"]),
    "a switch": (["lora._bypass_"], ["true", "false"]),
    "an addition": (["+sampler.more", "seed"], ["1", "2"]),
    "a mapping": (["positive", "positive.text"], ["{text: a star}", "a ring"]),
    "an interpolation": (["sampler.steps"], ["${seed}", "3"]),
    "a setting of hydra": (["hydra.job.name", "seed"], ["1", "2"]),
    "a deletion": (["~cfg_norm.strength", "seed"], ["1.0", "2"]),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_job_is_as_hydra_composes_it(name: str):
    paths, values = SWEEPS[name]
    jobs = [
        [
            f"{path}={value}" if value or not path.startswith("~") else path
            for path, value in zip(paths, row, strict=True)
        ]
        for row in itertools.product(values, repeat=len(paths))
    ]
    register_names()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["hydra.sweep.dir=x"], RunMode.MULTIRUN)
        composer = SweepComposer(loader)
        for job in jobs:
            try:
                expected = OmegaConf.to_container(loader.load_sweep_config(master, job))
            except Exception as error:  # noqa: BLE001 (which must be the same)
                with pytest.raises(type(error)) as raised:
                    composer.load_sweep_config(master, job)
                assert str(raised.value) == str(error)
            else:
                assert OmegaConf.to_container(composer.load_sweep_config(master, job)) == expected


def test_an_override_that_changes_a_part_of_another_is_not_taken_the_short_way(caplog):
    """Their order matters: here the mapping comes last and wins."""
    register_names()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["hydra.sweep.dir=x"], RunMode.MULTIRUN)
        composer = SweepComposer(loader)
        for steps in (4, 8):  # the short way is compared once, and trusted from then on
            composer.load_sweep_config(master, [f"sampler.steps={steps}"])
        for text in ("a ring", "a star"):
            job = [f"positive.text={text}", "positive={text: a square}"]
            expected = OmegaConf.to_container(loader.load_sweep_config(master, job))
            assert expected["positive"]["text"] == "a square"
            assert OmegaConf.to_container(composer.load_sweep_config(master, job)) == expected
    assert not caplog.messages
