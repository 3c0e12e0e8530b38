"""Where the files of latentgrid and those of a user's project are.

latentgrid's own conf/, models/ and nodes/ are beside pipeline/ in a checkout, and inside of it in an installed wheel. A
project is a folder of a user's, made by `latentgrid init`: its conf/ holds what differs, its models/ more models.

    demo/conf/config.yaml          begins from latentgrid's: `defaults: [latentgrid, _self_, ...]`
    demo/conf/sampler/mine.yaml    one more choice: latentgrid run sampler=mine
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_BUNDLED = Path(__file__).parents[1] / "bundled"

IS_INSTALLED = _BUNDLED.is_dir()
"""Whether this is an installed wheel and not a checkout."""

ROOT = _BUNDLED if IS_INSTALLED else Path(__file__).parents[2]
"""The folder that has latentgrid's own conf/, models/ and nodes/."""

BASE = "latentgrid"
"""What a project's config.yaml names first in its defaults: latentgrid's own config.yaml."""

VARIABLE = "LATENTGRID_PROJECT"
"""The environment variable that names the folder of the project."""


def find_project(folder: Path) -> Path | None:
    """Return the nearest project from `folder` upwards, or None.

    The conf/config.yaml of another Hydra application makes no project: only one that begins from latentgrid's does.
    """
    for candidate in (folder, *folder.parents):
        try:
            text = (candidate / "conf" / "config.yaml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if re.search(rf"^\s*-\s*/?{BASE}\s*(#.*)?$", text, re.MULTILINE):
            return candidate
    return None


def _choose_project() -> Path | None:
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    return find_project(Path.cwd()) if IS_INSTALLED else None


PROJECT = _choose_project()
"""The folder of the user's project, None if there is none. A checkout has one only if VARIABLE names it."""

CONF_FOLDERS = tuple(folder / "conf" for folder in (PROJECT, ROOT) if folder)
"""The conf/ folders, the user's before latentgrid's own."""
