"""Exported graphs in ComfyUI's real GUI, in a real browser; benchmarks/gui.py has more of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from filelock import FileLock
from patience import PATIENCE
from warm_python import PYTHON

from pipeline.base.cache_folder import cache_folder

FRONT_END = "comfyui-frontend-package==1.47.12"
"""The front end that ComfyUI 0.30.0 asks for."""


@pytest.fixture(scope="module")
def gui() -> Path:
    """The front end's files, fetched once into the cache folder."""
    if not shutil.which("chromium"):
        pytest.skip("needs chromium: apt-get install chromium")
    folder = cache_folder() / FRONT_END
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            uv = Path(PYTHON).with_name("uv")
            subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", part, FRONT_END], check=True)
            part.rename(folder)
    return folder / "comfyui_frontend_package" / "static"


def test_the_gui_makes_the_same_prompts_of_exported_graphs(gui, environment):
    command = [PYTHON, str(ROOT / "benchmarks" / "gui.py"), str(gui)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["equal"] * 6
