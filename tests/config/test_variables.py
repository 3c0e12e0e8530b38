"""Which variables of a config something reads; one that nothing reads has no effect, and is named."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from pipeline.config.read import compose_config, read_config
from pipeline.config.variables import find_unread

NODE = {"_node_": "KSampler", "steps": 1}


@pytest.mark.parametrize(
    "value",
    [
        "${steps}",
        "${ steps }",
        "${..steps}",
        "x ${steps} y",
        "${oc.select:steps}",
        "${oc.select:steps,5}",
        "${custom:'a ${seed} b',[steps]}",
        "${${seed}}",
        "${oc.select:${seed}}",
        ["${steps}"],
        {"inner": "${...steps}"},
        {"inner": {"deep": ["${.....steps}"]}},
        "${between}",
    ],
)
def test_a_variable_that_something_reads_is_read(value: Any) -> None:
    config = {"s": {"_node_": "K", "x": value}, "steps": 4, "seed": 1, "between": "${steps}"}
    for one in (config, OmegaConf.create(config)):
        assert "steps" not in find_unread(one, ["steps", "seed", "between"], None)


@pytest.mark.parametrize(
    "value",
    [
        "steps",
        "${s.steps}",
        "${.steps}",
        "${s[steps]}",
        "\\${steps}",
        "${oc.env:steps}",
        "${now:steps}",
        {"inner": "${..steps}"},
        1,
        None,
    ],
)
def test_a_variable_that_only_looks_like_it_is_not(value: Any) -> None:
    config = {"s": {"_node_": "K", "x": value, "steps": 1}, "steps": 4, "lonely": "${steps}"}
    for one in (config, OmegaConf.create(config)):
        assert find_unread(one, ["steps", "lonely"], None) == ("steps", "lonely")


def test_hydras_own_settings_read_too_and_what_it_notes_of_overrides_does_not() -> None:
    read = read_config(compose_config(["+steps=4", "hydra.sweep.subdir=${steps}"]))
    assert (read.problems, read.variables) == ((), {"seed": 42, "steps": 4})
    read = read_config(compose_config(["+steps=4", "+other=${steps}"]))
    assert [problem.where for problem in read.problems] == ["steps", "other"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+steps=4", "steps: is read by nothing, so it has no effect, got 4; did you mean 'sampler.steps'?"),
        ("+cfg=1", "cfg: is read by nothing, so it has no effect, got 1; did you mean 'sampler.cfg'?"),
        ("++stpes=4", "stpes: is read by nothing, so it has no effect, got 4; did you mean 'sampler.steps'?"),
        ("+sed=4", "sed: is read by nothing, so it has no effect, got 4; did you mean 'seed' or 'sampler.seed'?"),
        (
            "+foo=[1]",
            "foo: is read by nothing, so it has no effect, got [1]. Leave it out, or let an input read it: ${foo}",
        ),
    ],
)
def test_an_override_without_effect_is_an_error_before_comfyui_starts(override: str, message: str) -> None:
    read = read_config(compose_config([override]))
    assert [str(problem) for problem in read.problems] == [message]
    assert read.has_wrong_settings
    assert read.variables == {"seed": 42}


def test_a_seed_that_the_graph_does_not_read_is_no_part_of_the_record_and_an_error_where_it_is_given() -> None:
    assert read_config(compose_config(["sampler.seed=7"])).problems == ()
    assert read_config(compose_config(["sampler.seed=7"])).variables == {}
    (problem,) = read_config(compose_config(["sampler.seed=7", "seed=8"])).problems
    assert str(problem).startswith("seed: is read by nothing, so it has no effect, got 8; did you mean 'sampler.seed'?")


def test_a_bypassed_node_reads() -> None:
    assert read_config(compose_config(["sampler._bypass_=true", "seed=3"])).problems == ()


def test_a_mapping_of_the_users_own_is_held_to_the_same() -> None:
    assert [problem.where for problem in read_config({"s": NODE, "steps": 4}).problems] == ["steps"]
    assert read_config({"s": NODE, "seed": 4}).problems == ()  # conf/config.yaml declares it for all graphs
    assert read_config({"s": NODE, "lora": None}).problems == ()  # null: not given
    assert read_config({"s": NODE, "steps": 4}, recorded=True).problems == ()


def test_what_a_file_of_conf_declares_is_no_mistake_of_the_user() -> None:
    config = compose_config([])
    OmegaConf.update(config, "width", 512, force_add=True)
    read = read_config(config)
    assert (read.problems, read.unread, read.variables) == ((), ("width",), {"seed": 42})
