"""Settings that are data: whatever their texts hold, they are set and read as they are."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pipeline.config.read import compose_config, read_config
from pipeline.config.values import format_override, set_values
from pipeline.errors import ConfigError

TEXTS = [
    "it's, (a:1.2) {b}",
    'a "b" \\',
    '\\"',
    "${seed}",
    "\\${seed}",
    "日本語\n[x]",
    "",
    " ",
    "null",
    "8",
    "a=b",
    "$",
    "?",
]


@pytest.mark.parametrize("text", TEXTS)
def test_values_are_data_and_so_are_the_overrides_that_say_the_same(text: str) -> None:
    value = {"a key": [text, 1, None], "other": text}
    config = compose_config()
    overrides = set_values(config, {"run.name": text, "comfyui.args": value, "run.outputs": [text]})
    for one in (config, compose_config(overrides)):
        assert OmegaConf.to_container(one.run, resolve=True)["name"] == text
        assert read_config(one).run.name == text
        assert read_config(one).run.outputs == [text]
        assert OmegaConf.to_container(one.comfyui, resolve=True)["args"] == value


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12))
def test_hydra_reads_a_formatted_override_as_its_value(text: str) -> None:
    (read,) = OverridesParser.create().parse_overrides([format_override("run.name", text)])
    assert OmegaConf.create({"name": read.value()}).name == text


def test_values_that_the_config_has_no_place_for_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        set_values(compose_config(), {"sampler.stpes": 8, "sampler.steps": object(), "seed": 1})
    first, second = caught.value.problems
    assert str(first) == "sampler.stpes: is not in the config; did you mean 'sampler.steps'?"
    assert str(second).startswith("sampler.steps: Value 'object' is not a supported primitive type, got <object")
