"""Find where each value of a composed config comes from: the command line, or a file of conf/."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from pipeline.base.project import CONF_FOLDERS

COMMAND_LINE = "command line"


def find_origins(config: DictConfig, hydra: Any, paths: Sequence[str]) -> dict[str, str]:
    """Return for each dotted path of `config` where it was set last.

    `hydra` is the config's hydra node, or None if it is not known. For a value that is an interpolation, the origin of
    the value that it refers to is named as well.

    Example:
        find_origins(config, hydra, ["sampler.seed"])  # composed with the override seed=3
        # {"sampler.seed": "sampler/euler.yaml -> seed: command line"}
    """
    overridden = list(_find_overridden(hydra)) if hydra is not None else []
    files = dict(_list_files(hydra)) if hydra is not None else {}
    return {path: _find_origin(config, path, overridden, files) for path in paths}


def _find_origin(config: DictConfig, path: str, overridden: Sequence[str], files: Mapping[str, Any]) -> str:
    if any(path == key or path.startswith(f"{key}.") for key in overridden):
        return COMMAND_LINE
    found = next((name for name, content in files.items() if _has_path(content, path.split("."))), "config")
    source = _read_interpolation(config, path)
    return f"{found} -> {source}: {_find_origin(config, source, overridden, files)}" if source else found


def _read_interpolation(config: DictConfig, path: str) -> str | None:
    """Return the path that a value refers to if it is a plain interpolation, else None."""
    parent = OmegaConf.select(config, path.rpartition(".")[0]) if "." in path else config
    key = path.rpartition(".")[2]
    if not isinstance(parent, DictConfig) or key not in parent or not OmegaConf.is_interpolation(parent, key):
        return None
    text = OmegaConf.to_container(parent, resolve=False)[key]  # type: ignore[index, call-overload]
    inner = text.removeprefix("${").removesuffix("}")
    return inner if inner.replace(".", "").replace("_", "").isalnum() else None


def _find_overridden(hydra: Any) -> Iterator[str]:
    """Return the keys of the overrides that set a value, without those that choose from a group."""
    return (override.key_or_group for override in _parse(hydra) if not _is_group(override.key_or_group))


def _parse(hydra: Any) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(list(hydra.overrides.task))


def _is_group(key: str) -> bool:
    return any((folder / key).is_dir() for folder in CONF_FOLDERS)


def _list_files(hydra: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and content of the files of conf/ that were composed, the strongest first.

    Experiments come first, then the other groups, then config.yaml.
    """
    choices = {group: [choice] for group, choice in hydra.runtime.choices.items() if choice and "hydra/" not in group}
    # Several choices of one group (experiment=[a,b]) are not among the choices that Hydra reports.
    several = {
        override.key_or_group: override.value() for override in _parse(hydra) if _is_group(override.key_or_group)
    }
    choices.update({group: chosen for group, chosen in several.items() if isinstance(chosen, list)})
    for group in sorted(choices, key=lambda group: group != "experiment"):
        for choice in reversed(choices[group]):
            yield from _read_file(group, str(choice))
    for folder in CONF_FOLDERS:
        yield "config.yaml", yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def _read_file(group: str, choice: str) -> Iterator[tuple[str, Any]]:
    group, _, package = group.partition("@")  # lora@lora2: a group given under another name
    path = next((path for conf in CONF_FOLDERS if (path := conf / group / f"{choice}.yaml").is_file()), None)
    if path is None:
        return
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    included = [entry for entry in content.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    yield f"{group}/{choice}.yaml", content if "@package _global_" in text else {package or group: content}
    for entry in included:
        yield from _read_file(group, entry)


def _has_path(content: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            return False
        content = content[key]
    return True
