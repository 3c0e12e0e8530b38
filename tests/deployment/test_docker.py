"""Dockerfile, .dockerignore and docker-compose.yaml: what a build would show at its end only, or operation too late."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from patience import PATIENCE
from warm_python import PYTHON

from pipeline.commands.worker import read_worker_config
from pipeline.config.read import WorkerSettings
from pipeline.models.sets import list_model_sets
from pipeline.service.health import Health

TEXT = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
INSTRUCTIONS = [line.split(maxsplit=1) for line in TEXT.replace("\\\n", "").splitlines() if line.strip()]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))


def find(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def read_pin(package: str) -> str:
    lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    (version,) = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
    return version


def test_cuda_is_that_of_the_lock() -> None:
    for image in (one.split()[0] for one in find("FROM")):
        assert image == f"nvidia/cuda:{read_pin('cuda-toolkit')}-base-ubuntu24.04"


def test_all_that_is_copied_is_there_and_sent_to_the_build() -> None:
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [name for one in find("COPY") if "--from" not in one for name in one.split()[:-1]]
    assert "pipeline" in copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in sent
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["setuptools"]["packages"]
    folders = {project["tool"]["setuptools"]["package-dir"].get(name, name).partition("/")[0] for name in packages}
    assert {name.partition(".")[0] for name in folders} <= set(copied)
    found = subprocess.run(["git", "ls-files", "models/*/*"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {f"!{file}" for file in found.stdout.split()} <= set(sent)


@pytest.fixture
def healthcheck() -> list[str]:
    """The command of the HEALTHCHECK, for this Python and a port that is free."""
    (text,) = find("HEALTHCHECK")
    command = json.loads(text.partition("CMD ")[2])
    assert f"'127.0.0.1', {WorkerSettings().port}," in command[-1]
    return [PYTHON, *command[1:]]


def test_the_healthcheck_tells_a_worker_from_none(healthcheck: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health()
    port = health.bind(0)
    health.serve()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a container may have one
    healthcheck[-1] = healthcheck[-1].replace(str(WorkerSettings().port), str(port))
    assert subprocess.run(healthcheck, timeout=PATIENCE, check=False).returncode == 0
    healthcheck[-1] = healthcheck[-1].replace("/healthz", "/nothing")
    assert subprocess.run(healthcheck, timeout=PATIENCE, check=False).returncode == 1
    healthcheck[-1] = healthcheck[-1].replace(str(port), "9")
    assert subprocess.run(healthcheck, timeout=PATIENCE, check=False, stderr=subprocess.DEVNULL).returncode == 1


def test_the_image_starts_a_worker_on_its_volumes(tmp_path: Path) -> None:
    (entrypoint,), (command,), (volumes,) = (map(json.loads, find(one)) for one in ("ENTRYPOINT", "CMD", "VOLUME"))
    assert entrypoint == ["python", "-m", "pipeline"]
    name, *overrides = command
    assert name == "worker"
    for volume in volumes:
        (tmp_path / volume.strip("/")).mkdir(parents=True)
    moved = [re.sub(r"(?<==)(\[?)/", rf"\1{tmp_path}/", one) for one in overrides]
    read = read_worker_config(["worker=kafka", "experiment=qwen_image_edit_2509_lightning", *moved])
    places = [*read.worker.roots, read.worker.output_root, *read.comfyui.models]
    assert all(any(Path(place).is_relative_to(f"{tmp_path}{volume}") for volume in volumes) for place in places)


def test_compose_speaks_of_what_there_is() -> None:
    services: dict[str, Any] = COMPOSE["services"]
    worker, models = services["worker"], services["models"]
    known = re.findall(r"^# (\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert {*worker["environment"], *models["environment"]} <= set(known)
    assert models["command"][:2] == ["models", "fetch"]
    assert models["command"][2] in list_model_sets()
    (volumes,) = map(json.loads, find("VOLUME"))
    assert {one.split(":")[1] for one in worker["volumes"]} == set(volumes)
    assert {one.split(":")[0] for one in worker["volumes"]} == set(COMPOSE["volumes"])
    assert int(worker["stop_grace_period"].removesuffix("s")) > WorkerSettings().grace_seconds
    address = worker["environment"]["KAFKA_BOOTSTRAP_SERVERS"]
    assert f"//{address}" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
