"""The wheel: built from the checkout, installed elsewhere, and used in a folder that has nothing of latentgrid."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT
from patience import PATIENCE
from safetensors.torch import load_file
from warm_python import PYTHON

UV = Path(PYTHON).with_name("uv")


def call(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment, text=True, capture_output=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The bin folder of an environment that has the wheel; the packages that it needs are those of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = call("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    build = [UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", PYTHON, "--out-dir", folder]
    built = call(*build, cwd=folder / "source")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("latentgrid-*.whl")
    shutil.rmtree(folder / "source")
    assert call(UV, "venv", "--quiet", "--python", PYTHON, folder / "venv", cwd=folder).returncode == 0
    done = call(UV, "pip", "install", "--quiet", "--no-deps", "--python", folder / "venv", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (packages,) = (folder / "venv/lib").glob("python3*/site-packages")
    (packages / "those_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "venv" / "bin"


def test_it_runs_the_default_graph_and_keeps_its_files_where_it_is_called(installed, tmp_path):
    before = {path for path in installed.parent.rglob("*") if "__pycache__" not in path.parts}
    done = call(installed / "latentgrid", "run", "sampler.steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (latent,) = tmp_path.glob("outputs/runs/*/*/sampler.latent")
    assert load_file(latent)["latent_tensor"].isfinite().all()
    assert (tmp_path / "outputs/mlflow.db").is_file()
    assert {path for path in installed.parent.rglob("*") if "__pycache__" not in path.parts} == before


def test_its_commands_answer(installed, tmp_path):
    assert call(installed / "latentgrid", "--version", cwd=tmp_path).stdout.startswith("latentgrid 0.")
    assert "sampler: euler" in call(installed / "latentgrid", "run", "--help", cwd=tmp_path).stdout
    assert "redrive" in call(installed / "latentgrid", "--help", cwd=tmp_path).stdout
    done = call(installed / "latentgrid", "run", "sampler.stepz=1", cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "sampler.stepz: is not in the config; did you mean 'sampler.steps'?",
    )


def test_what_other_code_may_use_is_there(installed, tmp_path):
    code = "import latentgrid, sys; print([getattr(latentgrid, name).__name__ for name in latentgrid.__all__])"
    done = call(installed / "python", "-c", code, cwd=tmp_path)
    assert "'NodeError'" in done.stdout, done.stderr
    assert "'sample_latent'" in done.stdout


def test_nothing_is_imported_into_the_package(installed, tmp_path):
    (tmp_path / "workflow.json").write_text("{}")
    done = call(installed / "latentgrid", "import", "workflow.json", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("import: needs a project to write the graph into. Make one first: latentgrid init")


def test_a_project_sets_what_differs(installed, tmp_path):
    command = installed / "latentgrid"
    done = call(command, "init", "demo", cwd=tmp_path)
    assert "cd demo && latentgrid run sampler.steps=4" in done.stdout, done.stderr
    project = tmp_path / "demo"
    (project / "conf/sampler").mkdir()
    (project / "conf/sampler/mine.yaml").write_text("defaults: [euler]\nsampler_name: heun\n")
    with (project / "conf/config.yaml").open("a") as config:
        config.write("seed: 7\n")

    (project / "deeper").mkdir()
    done = call(command, "run", "sampler=mine", "experiment=tiny", "--cfg", "job", cwd=project / "deeper")
    for line in ("seed: 7", "sampler_name: heun", "unet_name: tiny_qwen_image"):
        assert line in done.stdout, done.stderr
    assert "sampler: euler, mine" in call(command, "run", "--help", cwd=project).stdout

    done = call(command, "run", "sampler=mine", "sampler.steps=1", cwd=project)
    assert done.returncode == 0, done.stderr
    (config,) = project.glob("outputs/runs/*/*/config.yaml")
    assert "sampler_name: heun" in config.read_text()

    done = call(command, "run", "sampler=min", cwd=project)
    assert done.stderr.strip() == "sampler: 'min' is not a choice of this group; did you mean 'mine'?"
    done = call(command, "--project", "nowhere", "run", cwd=project)
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "LATENTGRID_PROJECT")
    done = call(command, "init", cwd=project)
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "conf/config.yaml")


def test_the_conf_of_another_hydra_application_is_no_project(installed, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.yaml").write_text("defaults: [_self_]\nepochs: 3\n")
    assert "steps: 8" in call(installed / "latentgrid", "run", "--cfg", "job", cwd=tmp_path).stdout
