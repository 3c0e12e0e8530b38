"""`python -m pipeline export` and `show`, on the real ComfyUI and the real MLflow."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from conftest import PROBES
from PIL import Image

from pipeline import run
from pipeline.cli import main


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run of a graph without a model, whose SaveImage writes into the run's folder; and its store."""
    folder = tmp_path_factory.mktemp("export")
    overrides = [
        *PROBES,
        *("+img._node_=EmptyImage", "+img.width=8", "+img.height=8", "+img.batch_size=1", "+img.color=255"),
        *("+save._node_=SaveImage", "+save.images=[img,IMAGE]", "+save.filename_prefix=x", "run.outputs=[]"),
    ]
    uri = f"tracking.uri=sqlite:///{folder}/mlflow.db"
    return run(overrides=[*overrides, uri], folder=folder / "run"), uri, overrides


def test_comfyuis_saver_embeds_both_formats(recorded):
    result, _, _ = recorded
    (picture,) = result.folder.glob("x_*.png")
    with Image.open(picture) as image:
        embedded = {key: json.loads(text) for key, text in image.text.items()}
    assert embedded == {
        "prompt": json.loads((result.folder / "prompt.json").read_text()),
        "workflow": json.loads((result.folder / "workflow.json").read_text()),
    }


def call(capsys, *words: str) -> str:
    main(words)
    return capsys.readouterr().out


@pytest.mark.parametrize(("form", "name"), [("api", "prompt.json"), ("ui", "workflow.json"), ("yaml", "config.yaml")])
def test_a_recorded_run_is_exported_as_it_was_recorded(recorded, capsys, form, name):
    result, uri, _ = recorded
    shown = call(capsys, "export", result.mlflow.run_id, uri, "--format", form)
    assert shown == (result.folder / name).read_text()


def test_overrides_are_exported_as_their_run_would_keep_them(recorded, capsys, tmp_path):
    result, uri, overrides = recorded
    assert json.loads(call(capsys, "export", *overrides, "--format", "api")) == json.loads(
        (result.folder / "prompt.json").read_text()
    )
    call(capsys, "export", *overrides, "--output", str(tmp_path / "new" / "w.json"))
    assert (tmp_path / "new" / "w.json").read_text() == (result.folder / "workflow.json").read_text()
    config = yaml.safe_load(call(capsys, "export", *overrides, uri, "--format", "yaml"))
    assert config == yaml.safe_load((result.folder / "config.yaml").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["0" * 32], f"run {'0' * 32}: workflow.json cannot be read from"),
        (["0" * 32, "sampler.steps=3"], "sampler.steps: is in the record and cannot be changed"),
        (["0" * 32, "tracking=none"], "tracking.uri: recorded runs are in MLflow, got null"),
        (["sampler.steps=0"], "sampler.steps: must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_exported_is_explained(recorded, capsys, words, message):
    _, uri, _ = recorded
    store = [] if "tracking=none" in words or "=" in words[0] else [uri]
    with pytest.raises(SystemExit) as ended:
        main(["export", *words, *store, *(PROBES if "=" in words[0] else [])])
    assert ended.value.code == 1
    assert message in capsys.readouterr().err


def test_the_tracker_goes_on_after_a_run_that_it_does_not_find(recorded, capsys):
    result, uri, _ = recorded
    with pytest.raises(SystemExit):
        main(["export", "f" * 32, uri])
    assert call(capsys, "export", result.mlflow.run_id, uri).startswith("{")


def test_show_prints_and_draws_the_graph(tmp_path, environment):
    command = [sys.executable, "-m", "pipeline", "show", "auraflow._bypass_=true"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["outputs/graph.svg", "outputs/graph.png"]
    assert "auraflow  ModelSamplingAuraFlow    (bypassed)  model <- lora  shift=3.0" in lines
    with Image.open(tmp_path / "outputs" / "graph.png") as image:
        assert image.width > image.height > 400
    assert "bypassed" in (tmp_path / "outputs" / "graph.svg").read_text()
