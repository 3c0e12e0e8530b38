"""Let the config of a user's project begin from latentgrid's own."""

from __future__ import annotations

import functools
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from pipeline.base.project import BASE, ROOT, VARIABLE
from pipeline.errors import ConfigError, Problem

CONFIG = ROOT / "conf" / "config.yaml"


class OwnGroups(SearchPathPlugin):
    """Lets Hydra find the groups of latentgrid's own conf/ after those of the project."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder."""
        search_path.append("latentgrid", f"file://{CONFIG.parent}")


@functools.cache  # every config that is parsed registers the names of conf/
def use_project(project: Path) -> None:
    """Register what the conf/config.yaml of a project may name. Raises ConfigError if it has none.

    `latentgrid` in its defaults is latentgrid's own config.yaml. What that overrides of Hydra's own groups is left out,
    because Hydra takes such overrides from the primary config only; `latentgrid init` writes them there.
    """
    if not (project / "conf" / "config.yaml").is_file():
        message = f"must name a folder that has a conf/config.yaml, got {str(project)!r}. `latentgrid init` makes one"
        raise ConfigError([Problem("no_project", VARIABLE, message)])
    base = OmegaConf.load(CONFIG)
    assert isinstance(base, DictConfig)
    base.defaults = [entry for entry in base.defaults if not _overrides(entry)]
    ConfigStore.instance().store(BASE, base, provider="latentgrid")
    Plugins.instance().register(OwnGroups)


def _overrides(entry: str | DictConfig) -> bool:
    """Return whether an entry of a defaults list is one as `override hydra/launcher: warm`."""
    return isinstance(entry, DictConfig) and str(next(iter(entry))).startswith("override ")
