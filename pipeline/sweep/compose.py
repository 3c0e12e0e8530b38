"""Compose the configs of a sweep's jobs: the first by Hydra, the others by changing the values that differ.

Hydra composes each job from the defaults list, and does so twice, because the sweeper checks all jobs before the
launcher gets them. That takes longer than everything else that a cell costs besides sampling. Most of this work depends
only on the chosen config groups. So if the overrides of a job differ from those of an earlier job only in plain values,
its config is made from a copy of the earlier config.
"""

from __future__ import annotations

import copy
import functools
import itertools
import logging
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)


class SweepComposer:
    """A replacement for Hydra's config loader during a sweep; its `load_sweep_config` returns the same configs faster.

    The first config that is made from a copy is compared with the one that Hydra composes. If they differ, Hydra
    composes all configs.
    """

    def __init__(self, loader: ConfigLoader):
        self._loader = loader
        self._parser = OverridesParser.create()
        self._templates: dict[tuple[str, ...], DictConfig] = {}
        self._trusted: bool | None = None
        self._is_group = functools.cache(lambda path: bool(loader.get_group_options(path)))

    def __getattr__(self, name: str) -> Any:
        """Return the attribute of Hydra's loader; only `load_sweep_config` is replaced."""
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the config of a job: `master_config` with `sweep_overrides`. Raises what Hydra's loader raises."""
        overrides = self._parser.parse_overrides(sweep_overrides)
        # The overrides without plain values: jobs with the same frame differ only in plain values.
        frame = tuple(_read_path(one) if self._is_plain(one) else str(one.input_line) for one in overrides)
        if frame not in self._templates or self._trusted is False or _overlap(frame):
            config = self._loader.load_sweep_config(master_config, sweep_overrides)
            self._templates[frame] = copy.deepcopy(config)
            return config
        config = _change_values(self._templates[frame], [one for one in overrides if self._is_plain(one)], overrides)
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        if self._trusted is None:
            composed = self._loader.load_sweep_config(master_config, sweep_overrides)
            self._trusted = OmegaConf.to_container(composed) == OmegaConf.to_container(config)
            if not self._trusted:
                log.warning("Hydra composes every job of this sweep, slowly; please report this to latentgrid")
                return composed
        return config

    def _is_plain(self, override: Override) -> bool:
        """Return whether an override changes a single value on which the composition of nothing else depends."""
        return (
            override.type == OverrideType.CHANGE
            and override.package is None
            and not isinstance(override.value(), dict | list)
            and not override.is_hydra_override()
            and not self._is_group(override.key_or_group)
        )


def _read_path(override: Override) -> str:
    return f"{override.key_or_group}="


def _overlap(frame: Sequence[str]) -> bool:
    """Return whether an override changes a part of what another one changes, so that their order matters."""
    paths = sorted(f"{path.lstrip('+~').partition('=')[0]}." for path in frame)
    return any(after.startswith(before) for before, after in itertools.pairwise(paths))


def _change_values(template: DictConfig, plain: Sequence[Override], overrides: Sequence[Override]) -> DictConfig:
    """Return a copy of `template` with the values of `plain`, and with what Hydra records about all `overrides`."""
    config = copy.deepcopy(template)
    for override in plain:
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    task_overrides = [override for override in overrides if not override.is_hydra_override()]
    config.hydra.overrides.task = [override.input_line for override in task_overrides]
    dirname_config = config.hydra.job.config.override_dirname
    lines = sorted(str(one.input_line) for one in task_overrides if one.key_or_group not in dirname_config.exclude_keys)
    config.hydra.job.override_dirname = dirname_config.item_sep.join(lines).replace("=", dirname_config.kv_sep)
    return config
