"""setup.sh on hosts of several kinds, with its real commands; only `make` and `nvidia-smi` are stand-ins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from patience import PATIENCE
from warm_python import PYTHON


class Host:
    """A copy of the project, whose .venv is the one of these tests, and a PATH of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.project, self.commands = folder / "project", folder / "commands"
        self.commands.mkdir()
        for name in ("setup.sh", ".env.example", "conf", "models", "nodes", "pipeline"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            (self.project / name).parent.mkdir(exist_ok=True)
            copy(ROOT / name, self.project / name)
        (self.project / "outputs").mkdir()
        (self.project / ".venv/bin").mkdir(parents=True)
        self.add_command("python", f'exec {PYTHON} "$@"', self.project / ".venv/bin")
        self.environment = {
            **environment,
            "PATH": f"{self.commands}:/usr/bin:/bin",
            "PYTHONPATH": str(self.project),
            "LATENTGRID_SAMPLING": "experiment=tiny tracking=none",
        }

    def add_command(self, name: str, script: str, folder: Path | None = None) -> None:
        path = (folder or self.commands) / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def set_up(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.project / "setup.sh"), *options]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )


@pytest.fixture
def host(tmp_path: Path, environment: dict[str, str]) -> Host:
    host = Host(tmp_path, environment)
    host.add_command("make", 'echo "make $@"')
    host.add_command("python3.13", "exit 1")
    host.add_command("python3.12", f'exec {PYTHON} "$@"')
    host.add_command("nvidia-smi", "exit 9")
    return host


def test_a_host_without_gpu_is_set_up_for_the_cpu_and_told_so(host: Host) -> None:
    done = host.set_up("--no-models")
    assert done.returncode == 0, done.stderr
    assert "warning: nvidia-smi finds no GPU here, so everything will run on the CPU" in done.stdout
    assert f"make setup PYTHON={host.commands}/python3.12" in done.stdout
    assert "the worker can start: config, ComfyUI and models are fine" in done.stdout
    assert (host.project / ".env").read_text() == (ROOT / ".env.example").read_text()

    (host.project / ".env").write_text("# mine\n")
    host.add_command("nvidia-smi", "echo NVIDIA L40S, 550.90.07")
    done = host.set_up("--no-models")
    assert done.returncode == 0, done.stderr
    assert "warning: driver 550.90.07 is too old for CUDA 13" in done.stdout
    assert (host.project / ".env").read_text() == "# mine\n"


def test_a_host_with_gpu_fetches_the_models(host: Host) -> None:
    host.add_command("nvidia-smi", "echo NVIDIA H100, 580.65.06; echo NVIDIA H100, 580.65.06")
    host.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    done = host.set_up()
    assert "warning" not in done.stdout
    assert done.returncode == 1
    assert done.stderr.count("the connection to http://127.0.0.1:9 failed") == 2


def test_all_that_a_host_lacks_is_said_before_anything_is_done(host: Host) -> None:
    (host.commands / "make").unlink()
    for name in ("python3.11", "python3.12", "python3.13", "python3"):
        host.add_command(name, "exit 1")
    host.add_command("df", "echo Avail; echo 3")
    for name in ("bash", "dirname", "tail"):
        (host.commands / name).symlink_to(shutil.which(name) or name)
    host.environment["PATH"] = str(host.commands)
    done = host.set_up()
    assert done.returncode == 1
    missing, make, room = done.stderr.splitlines()
    assert missing.startswith("error: Python 3.11, 3.12 or 3.13 with venv is missing: apt-get install")
    assert make == "error: make is missing: apt-get install make"
    assert room == "error: 8 GB are needed here, and 3 are free: make room"


def test_an_unknown_option_is_refused(host: Host) -> None:
    done = host.set_up("--models")
    assert (done.returncode, done.stderr) == (2, "usage: ./setup.sh [--no-models]\n")
