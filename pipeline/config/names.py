"""The names that conf/ uses and that are not Hydra's own."""

from __future__ import annotations

from omegaconf import OmegaConf

from pipeline.base.project import PROJECT
from pipeline.models.tiny import tiny_folder

LAUNCHER = "hydra_plugins.latentgrid.WarmLauncher"
"""The name by which Hydra finds the class of pipeline/sweep/launcher.py; it takes only launchers of hydra_plugins."""


def register_names() -> None:
    """Register the names that conf/ uses. Idempotent. Raises ConfigError if the project is none.

    They are `${latentgrid.tiny:FILE}`, the path of an input of the tiny model, and the launcher `warm`.
    """
    from hydra.core.config_store import ConfigStore

    OmegaConf.register_new_resolver("latentgrid.tiny", lambda name: str(tiny_folder() / name), replace=True)
    ConfigStore.instance().store("warm", {"_target_": LAUNCHER}, group="hydra/launcher", provider="latentgrid")
    if PROJECT:
        from pipeline.config.project import use_project

        use_project(PROJECT)
