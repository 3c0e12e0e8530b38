"""Find everything that is wrong with command line overrides, where Hydra names only the first fault.

This module is used only after Hydra refused to compose; it needs neither torch nor ComfyUI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pipeline.base.project import CONF_FOLDERS
from pipeline.config.names import register_names
from pipeline.config.read import CONF
from pipeline.config.values import has_key, suggest_path
from pipeline.errors import Problem, did_you_mean


def find_override_problems(overrides: Sequence[str]) -> list[Problem]:
    """Return the problems of all overrides that Hydra cannot apply, or an empty list if each is valid by itself.

    Example:
        find_override_problems(["sampler.stps=8", "sampler.seeed=1"])  # two problems with the code "unknown_input"
    """
    problems: list[Problem] = []
    parsed = list(_parse(overrides, problems))
    register_names()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = [override for override in parsed if _chooses(override)]
        choice_problems = [problem for override in groups for problem in _check_choice(override)]
        chosen = [] if choice_problems else [line for override in groups if (line := _take_first(override))]
        config = _compose(chosen, choice_problems)
    values = [override for override in parsed if override not in groups]
    return problems + choice_problems + [problem for override in values for problem in _check_value(override, config)]


def _parse(overrides: Sequence[str], problems: list[Problem]) -> Iterator[Override]:
    for text in overrides:
        try:
            yield from OverridesParser.create().parse_overrides([text])
        except HydraException:
            message = (
                "cannot be read as an override. Write path.to.value=VALUE, and quote special characters: 'path=\"a,b\"'"
            )
            problems.append(Problem("bad_override", text, message))


def _compose(chosen: list[str], problems: list[Problem]) -> DictConfig:
    """Return the config with these choices.

    If Hydra refuses them, add a problem for each choice that it refuses alone, and return the config with the default
    choices.
    """
    try:
        return compose("config", overrides=chosen)
    except HydraException:
        for line in chosen:
            try:
                compose("config", overrides=[line])
            except HydraException as error:
                group, plain = line.lstrip("+~").partition("=")[0].partition("@")[0], line.lstrip("+")
                message = f"{line} is refused: {' '.join(str(error).split())}"
                if line != plain and "Multiple values" in message:
                    message = f"is chosen in conf/ already, so no + is needed: {plain}"
                problems.append(Problem("bad_override", group, message))
        return compose("config")


def _chooses(override: Override) -> bool:
    """Return whether an override chooses from a group.

    A mapping given to the key of a group does not: it is merged into the chosen config.
    """
    is_group = bool(_list_choices(override.key_or_group)) or any(
        (folder / override.key_or_group).is_dir() for folder in CONF_FOLDERS
    )
    return is_group and not isinstance(override.value(), dict)


def _list_choices(group: str) -> list[str]:
    return GlobalHydra.instance().config_loader().get_group_options(group)


def _check_choice(override: Override) -> Iterator[Problem]:
    choices = _list_choices(override.key_or_group)
    for choice in [] if override.is_delete() else _list_values(override):
        if str(choice) not in choices:
            shown = "null" if choice is None else repr(choice)
            listed = f". Choose from {', '.join(choices)}" if choices else ", which has none yet"
            near = did_you_mean(choice, choices) or listed
            yield Problem("value_not_in_list", override.key_or_group, f"{shown} is not a choice of this group{near}")


def _list_values(override: Override) -> list[Any]:
    """Return the values of an override, none for a sweep that does not list its values (a glob, an interval)."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return list(value.list)
    if override.is_sweep_override():
        return []
    return value if isinstance(value, list) else [value]


def _take_first(override: Override) -> str | None:
    """Return the override as it was given, or with only the first value if it is a sweep.

    One value is enough to know the keys. Return None for a sweep that does not list its values.
    """
    if not override.is_sweep_override():
        return override.input_line
    values = _list_values(override)
    return f"{str(override.input_line).partition('=')[0]}={values[0]}" if values else None


def _check_value(override: Override, config: DictConfig) -> Iterator[Problem]:
    key, value = override.key_or_group, override.value()
    if override.is_add() or override.is_force_add() or key.startswith("hydra."):
        return
    if not has_key(config, key):
        yield Problem("unknown_input", key, "is not in the config" + _format_hint(override, config))
    elif isinstance(value, dict):
        section = OmegaConf.select(config, key)
        for name in (name for name in value if isinstance(section, DictConfig) and name not in section):
            message = f"has no key {name!r}. To add it, write +{key}.{name}={value[name]}"
            yield Problem("unknown_input", key, message)


def _format_hint(override: Override, config: DictConfig) -> str:
    takes_any_key = OmegaConf.select(config, override.key_or_group.rpartition(".")[0]) == {}  # such as comfyui.args
    near = "" if takes_any_key else suggest_path(config, override.key_or_group)
    if near:
        return near
    return ", so it cannot be deleted" if override.is_delete() else f". To add it, write +{override.input_line}"
