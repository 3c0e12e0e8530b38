"""The answer to `python run.py --help`.

Hydra's own help lists all config groups twice, including those of `hydra/`, although the template in conf/config.yaml
shows only the groups of the application. That takes more than a second.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf, open_dict

from pipeline.config.names import register_names
from pipeline.config.read import CONF


def format_help(overrides: Sequence[str]) -> str:
    """Return `hydra.help.template` of the config that the overrides compose, filled in.

    `$APP_CONFIG_GROUPS` becomes the groups with their choices and `$CONFIG` the config as YAML. Other placeholders of
    Hydra stay as they are. Raises the errors of Hydra and OmegaConf.

    Example:
        print(format_help(["sampler.steps=8"]))
    """
    register_names()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
        groups = dict(_list_groups(GlobalHydra.instance().config_loader()))
    HydraConfig.instance().set_config(config)
    template = string.Template(config.hydra.help.template)
    with open_dict(config):
        del config["hydra"]
    lines = [f"{group}: {', '.join(choices)}" for group, choices in sorted(groups.items())]
    return template.safe_substitute(
        APP_CONFIG_GROUPS="".join(f"{line}\n" for line in lines), CONFIG=OmegaConf.to_yaml(config)
    )


def _list_groups(loader: ConfigLoader, parent: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield each group below `parent` with its choices, without the groups of Hydra itself."""
    for name in loader.list_groups(parent):
        group = f"{parent}/{name}" if parent else name
        if group == "hydra":
            continue
        if choices := loader.get_group_options(group, ObjectType.CONFIG):
            yield group, sorted(choices)
        yield from _list_groups(loader, group)
