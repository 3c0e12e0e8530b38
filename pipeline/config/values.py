"""Set values as plain data in a composed config, or write them as overrides that Hydra parses to the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import ConfigError, Problem, did_you_mean


def set_values(config: DictConfig, values: Mapping[str, Any]) -> list[str]:
    """Set dotted paths of a composed config to values that are taken literally: no quotes, no interpolation.

    Return the equivalent overrides. Raises ConfigError with a problem for every path that the config does not have and
    for every value that it refuses.

    Example:
        set_values(config, {"positive.text": "it's, (a:1.2) {b}", "sampler.steps": 8})
    """
    problems = []
    for path, value in values.items():
        if not has_key(config, path):
            problems.append(Problem("unknown_input", path, f"is not in the config{suggest_path(config, path)}"))
            continue
        try:
            OmegaConf.update(config, path, escape(value), force_add=isinstance(value, Mapping))
        except OmegaConfBaseException as error:
            problems.append(Problem("invalid_input_type", path, f"{str(error).splitlines()[0]}, got {value!r}"))
    if problems:
        raise ConfigError(problems)
    return [format_override(path, value) for path, value in values.items()]


def format_override(path: str, value: Any) -> str:
    """Return the override that Hydra parses to `value`: text, number, bool, None, or lists and mappings of them.

    A mapping is merged into the one in the config.

    Example:
        format_override("positive.text", "it's")  # positive.text="it's"
    """
    return f"{'++' * isinstance(value, Mapping)}{path}={_format_value(value)}"


def _format_value(value: Any) -> str:
    if isinstance(value, str):
        return _quote(escape(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_escape_key(key)}:{_format_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_format_value, value)) + "]"
    return json.dumps(value)


def _escape_key(key: Any) -> str:
    """Return a key with special characters escaped, because Hydra's grammar has no quotes for keys."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(key))


def _quote(text: str) -> str:
    """Return a text in double quotes.

    In Hydra's grammar a backslash in quotes is literal, unless only backslashes stand between it and a quote.
    """
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + (found[2] and '\\"'), text) + '"'


def escape(value: Any) -> Any:
    """Return the value with each `${` escaped, so that OmegaConf does not take it for an interpolation."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, Mapping):
        return {key: escape(one) for key, one in value.items()}
    return [escape(one) for one in value] if isinstance(value, list | tuple) else value


def has_key(config: DictConfig, key: str) -> bool:
    """Return whether a dotted path is a key of the config, or an item of a list in it."""
    parent, _, last = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    if isinstance(section, ListConfig):
        return last.isdigit() and int(last) < len(section)
    return isinstance(section, DictConfig) and last in section


def suggest_path(config: DictConfig, path: str) -> str:
    """Return a did-you-mean hint with the dotted path of the config nearest to a wrong one, or an empty text."""
    tree: Any = OmegaConf.to_container(config, resolve=False)
    return did_you_mean(path, _list_paths(tree))


def _list_paths(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for name, value in tree.items():
        paths.append(f"{prefix}{name}")
        if isinstance(value, Mapping):
            paths.extend(_list_paths(value, f"{prefix}{name}."))
    return paths
