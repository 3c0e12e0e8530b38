"""What is wrong with command line overrides: all of them at once, where Hydra names the first and stops.

Consulted only after Hydra refused to compose; needs neither torch nor ComfyUI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pipeline.config import CONF, register_resolvers
from pipeline.errors import Problem, did_you_mean


def find_override_problems(overrides: Sequence[str]) -> list[Problem]:
    """Name every override that Hydra cannot apply; empty if each of them is fine by itself."""
    problems: list[Problem] = []
    parsed = list(_parse(overrides, problems))
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = [override for override in parsed if _list_choices(override.key_or_group)]
        wrong = [problem for override in groups for problem in _check_choice(override)]
        chosen = [] if wrong else [text for override in groups if (text := _take_first(override))]
        config = compose("config", overrides=chosen)
    values = [override for override in parsed if override not in groups]
    return problems + wrong + [problem for override in values for problem in _check_key(override, config)]


def _parse(overrides: Sequence[str], problems: list[Problem]) -> Iterator[Override]:
    for text in overrides:
        try:
            yield from OverridesParser.create().parse_overrides([text])
        except HydraException:
            message = (
                "cannot be read as an override. Write path.to.value=VALUE, and quote special characters: 'path=\"a,b\"'"
            )
            problems.append(Problem("bad_override", text, message))


def _list_choices(group: str) -> list[str]:
    return GlobalHydra.instance().config_loader().get_group_options(group)


def _check_choice(override: Override) -> Iterator[Problem]:
    choices = _list_choices(override.key_or_group)
    for choice in _list_values(override):
        if isinstance(choice, str) and choice not in choices:
            near = did_you_mean(choice, choices) or f". Choose from {', '.join(choices)}"
            yield Problem("value_not_in_list", override.key_or_group, f"{choice!r} is not a choice of this group{near}")


def _list_values(override: Override) -> list[Any]:
    value = override.value()
    if override.is_sweep_override():
        return list(override.sweep_iterator()) if override.is_discrete_sweep() else []
    return value if isinstance(value, list) else [value]


def _take_first(override: Override) -> str | None:
    """The override with the first of its swept values, which is enough to know the keys."""
    values = _list_values(override)
    return f"{override.key_or_group}={values[0]}" if values and not override.is_delete() else None


def _check_key(override: Override, config: DictConfig) -> Iterator[Problem]:
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or key.startswith("hydra.") or _has_key(config, key):
        return
    tree: Any = OmegaConf.to_container(config, resolve=False)
    takes_any = OmegaConf.select(config, key.rpartition(".")[0]) == {}  # such as comfyui.args
    near = "" if takes_any else did_you_mean(key, _list_paths(tree))
    yield Problem("unknown_input", key, f"is not in the config{near or f'. To add it, write +{override.input_line}'}")


def _has_key(config: DictConfig, key: str) -> bool:
    parent, _, last = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    return isinstance(section, DictConfig) and last in section


def _list_paths(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for name, value in tree.items():
        paths.append(f"{prefix}{name}")
        if isinstance(value, Mapping):
            paths.extend(_list_paths(value, f"{prefix}{name}."))
    return paths
