"""Fixtures for all tests: the real ComfyUI, and one session of it for the whole run."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings
from warm_python import PYTHON, make_warm_python

ROOT = Path(__file__).parents[1]

# Modules that start processes, servers and browsers, the longest first. `make test-fast` leaves them out.
SLOW = (
    "sweep/test_launcher.py",
    "record/test_server.py",
    "service/test_faults.py",
    "service/test_worker.py",
    "runs/test_rerun.py",
    "record/test_simultaneous.py",
    "record/test_mlflow_pages.py",
    "demo_model/test_model.py",
    "demo_model/test_training.py",
    "workflow/test_gui.py",
    "service/test_sample_latent.py",
    "deployment/test_setup.py",
    "commands/test_import_workflow.py",
    "record/test_tracker.py",
    "test_cli.py",
    "test_api_md.py",
)
SPREAD = ("sweep/test_launcher.py", "test_cli.py")  # whose tests share nothing, so they may run in different processes

# How fast an example is says how busy the machine is.
settings.register_profile("latentgrid", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("latentgrid")

# One process runs one ComfyUI with one set of settings, so every run in this process has these overrides.
PROBES = [f"comfyui.custom_nodes=[{ROOT / 'tests' / 'packs'}]"]


def pytest_configure(config: pytest.Config) -> None:
    """Let what tests start begin with its imports done; see warm_python.py."""
    folder = tempfile.TemporaryDirectory(prefix="latentgrid-python-")
    config.add_cleanup(folder.cleanup)
    sys.executable = make_warm_python(Path(folder.name))


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow modules first, so that no process is left alone with one in the end, and each module in one process,
    because its tests share servers and sweeps."""
    places = {item: item.path.relative_to(ROOT / "tests").as_posix() for item in items}
    for item, place in places.items():
        if place in SLOW:
            item.add_marker(pytest.mark.slow)
        if place not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(place))
    items.sort(key=lambda item: SLOW.index(places[item]) if places[item] in SLOW else len(SLOW))


@pytest.fixture
def own_python(monkeypatch) -> None:
    """Let what a test starts be a Python of its own."""
    monkeypatch.setattr(sys, "executable", PYTHON)


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
