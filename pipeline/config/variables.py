"""Find which variables of a config something reads: `${seed}`, `${..seed}`, `${oc.select:seed}`.

Variables are top-level values. Nothing is resolved. If it is uncertain whether a variable is read, it counts as read.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar_parser import parse
from omegaconf.grammar_visitor import GrammarVisitor

from pipeline.errors import Problem

UNREAD = "unread_variable"  # the code of the problem

COMPUTED = "\0"  # stands for the value of an interpolation, because nothing is resolved while a text is parsed
ANY = "*"  # a key that another interpolation computes (`${${name}}`), so it may be any key
PLAIN_RESOLVERS = frozenset({"oc.env", "now", "hydra"})  # their arguments name no values of the config

Path = tuple[str, ...]


def find_unread(config: DictConfig | Mapping[str, Any], names: Collection[str], hydra: Any) -> tuple[str, ...]:
    """Return those of the top-level `names` that have a value and that nothing in a config reads.

    `hydra` is its hydra node, or None if it is not known; the settings in it read variables too (`hydra.sweep.subdir`).

    Example:
        find_unread({"seed": 1, "steps": 4, "sampler": {"seed": "${seed}"}}, ["seed", "steps"], None)  # ("steps",)
    """
    entries = {str(name): _get_entry(config, name) for name in config}
    entries.pop("hydra", None)
    names = [name for name in names if _read_raw(entries[name]) is not None]
    read_names = find_read_names(entries, names)
    if len(read_names) < len(names) and hydra is not None:
        read_names = find_read_names({**entries, "hydra": _drop_overrides(hydra)}, names)
    return tuple(name for name in names if name not in read_names)


def _get_entry(config: DictConfig | Mapping[str, Any], name: Any) -> Any:
    return config._get_node(name) if isinstance(config, DictConfig) else config[name]


def _read_raw(value: Any) -> Any:
    """Return a value, or the values of a container, with interpolations as they are written.

    `OmegaConf.to_container` of a whole config takes ten times as long.
    """
    return value._value() if isinstance(value, Node) else value


def _drop_overrides(hydra: Any) -> dict[str, Any]:
    """Return Hydra's settings without its notes of the overrides, whose values are in the config already."""
    settings: Any = OmegaConf.to_container(hydra, resolve=False) if OmegaConf.is_config(hydra) else hydra
    found = {key: value for key, value in settings.items() if key != "overrides"}
    job = found.get("job") or {}
    return {**found, "job": {key: value for key, value in job.items() if key != "override_dirname"}}


def list_overridden(hydra: Any) -> set[str] | None:
    """Return the paths that the command line overrides name, or None if Hydra did not compose the config."""
    overrides = hydra.get("overrides") if hydra is not None else None
    if not overrides or overrides.get("task") is None:
        return None
    return {override.lstrip("+~").partition("=")[0].strip() for override in overrides["task"]}


def explain_unread(name: str, values: Mapping[str, Any]) -> Problem:
    """Return the problem of a variable without effect, which suggests the input or setting with the nearest name."""
    paths: dict[str, list[str]] = {}
    for section, content in values.items():
        for key in content if isinstance(content, Mapping) else ():
            paths.setdefault(str(key), []).append(f"{section}.{key}")
        if section != name and not isinstance(content, Mapping):
            paths.setdefault(section, []).append(section)
    near = difflib.get_close_matches(name, paths, n=1, cutoff=0.6)
    meant = " or ".join(map(repr, paths[near[0]])) if near else ""
    hint = f"; did you mean {meant}?" if near else f". Leave it out, or let an input read it: ${{{name}}}"
    return Problem(UNREAD, name, f"is read by nothing, so it has no effect, got {values[name]!r}{hint}")


def find_read_names(config: Mapping[str, Any], names: Collection[str]) -> set[str]:
    """Return which of the top-level `names` the other values of an unresolved `config` read.

    They may read them directly or through other variables. If a key is computed (`${${name}}`), all names count as
    read. A name in an argument of a resolver counts as read, because a resolver may read any value.
    """
    read_names: set[str] = set()
    pending = [name for name in config if name not in names]
    while pending:
        origin = pending.pop()
        for key in _list_keys(config[origin], (str(origin),)):
            found = set(names) if key == ANY else {key} & set(names)
            pending += found - read_names
            read_names |= found
    return read_names


def _list_keys(value: Any, path: Path) -> Iterator[str]:
    """Yield the first key of each reference in the texts of a value; `path` is the place of the value."""
    value = _read_raw(value)
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _list_keys(one, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from _list_keys(one, (*path, str(place)))
    elif isinstance(value, str) and "${" in value:
        for key in _parse_keys(value):
            yield _find_first(key, path)


def _find_first(key: str, path: Path) -> str:
    """Return the first key of the whole path that a key refers to, be it absolute (`a.b`) or relative (`..b`).

    A relative key starts at the mapping that holds the place `path`; each dot but the first goes up by one mapping.
    """
    rest = key.lstrip(".")
    dots = len(key) - len(rest)
    full_path = [*(path[: len(path) - dots] if dots else ()), *filter(None, re.split(r"[.\[\]]+", rest))]
    first = full_path[0] if full_path else ANY
    return ANY if COMPUTED in first else first


@functools.lru_cache(maxsize=4096)  # the jobs of a sweep contain the same texts
def _parse_keys(text: str) -> tuple[str, ...]:
    """Return the keys of all node interpolations in a text, and the words in the arguments of resolvers."""
    keys: list[str] = []

    def collect_key(key: str, memo: Any) -> Any:
        keys.append(key)
        return COMPUTED

    def collect_arguments(name: str, args: tuple[Any, ...], args_str: tuple[str, ...]) -> Any:
        if name not in PLAIN_RESOLVERS:
            keys.extend(ANY for arg in args if repr(COMPUTED)[1:-1] in repr(arg))
            keys.extend(word for arg in args_str for word in [arg, *re.findall(r"[^\W\d]\w*", arg)])
        return COMPUTED

    try:
        GrammarVisitor(collect_key, collect_arguments, None).visit(parse(text))
    except OmegaConfBaseException:
        return ()  # the fault is reported when the text is resolved
    return tuple(key for key in keys if key)
