"""This project's node pack as ComfyUI imports it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PACK = Path(__file__).parents[1] / "nodes" / "latentgrid"


def import_pack(name: str) -> ModuleType:
    """Import the pack as ComfyUI does: from its path, under a name of no package that could be imported."""
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    assert spec is not None
    assert spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    sys.modules[name] = pack
    spec.loader.exec_module(pack)
    return pack
