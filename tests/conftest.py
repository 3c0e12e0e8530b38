"""Fixtures for all tests: the real ComfyUI, and one session of it for the whole run."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

# How fast an example is says how busy the machine is.
settings.register_profile("latentgrid", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("latentgrid")

# One process runs one ComfyUI with one set of settings, so every run in this process has these overrides.
PROBES = [f"comfyui.custom_nodes=[{ROOT / 'tests' / 'packs'}]"]


def load_yaml(text: str) -> Any:
    """A file of conf/ as Hydra reads it."""
    from omegaconf._utils import get_yaml_loader

    return yaml.load(text, Loader=get_yaml_loader())


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The folder of the ComfyUI that the tests run on: what a plain `python run.py` would use."""
    from pipeline.engine.comfyui.locate import find_comfyui

    return find_comfyui().path


@pytest.fixture(scope="session")
def session():
    """The session that `run` uses, with the tiny Qwen-Image model and the nodes of tests/packs/probe."""
    from pipeline.config.read import compose_config, read_config
    from pipeline.runs.process import open_session

    return open_session(read_config(compose_config([*PROBES, "experiment=tiny"])))


@pytest.fixture(autouse=True)
def loggers() -> None:
    """MLflow's migrations, which tests run in this process, disable all loggers that there are."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith(("pipeline", "latentgrid")) and isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """The environment for a run in a process of its own."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
