"""Distances of latents, the command that shows them, and `run.reference`."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest
import torch
from conftest import PROBES
from mlflow import MlflowClient
from PIL import Image
from safetensors.torch import save_file

from pipeline import run
from pipeline.cli import main
from pipeline.errors import ConfigError, RecordError
from pipeline.latents.distance import Tolerance, compare_latents, is_close, measure_distance, read_latent

ONE = torch.tensor([[[[0.0, 3.0], [4.0, 0.0]]]])


def test_distances_are_what_their_names_say():
    found = measure_distance(ONE + torch.tensor([[0.0, 0.0], [0.0, 2.0]]), ONE)
    assert (found.is_equal, found.max_abs, found.mean_abs) == (False, 2.0, 0.5)
    assert found.cosine == pytest.approx(25 / (5 * math.sqrt(29)))
    assert found.psnr == pytest.approx(10 * math.log10(4**2 / 1.0))


def test_equal_is_bit_for_bit():
    assert measure_distance(ONE, ONE.clone()).is_equal
    assert not measure_distance(-ONE, -ONE + 0.0).is_equal  # -0.0 and 0.0
    assert not measure_distance(ONE.half(), ONE).is_equal
    assert measure_distance(ONE.half(), ONE).max_abs == 0


def test_only_finite_distances_are_metrics():
    assert measure_distance(ONE, ONE).list_metrics() == {"max_abs": 0.0, "mean_abs": 0.0, "cosine": 1.0}
    assert measure_distance(ONE * math.nan, ONE).list_metrics() == {}
    assert "psnr" not in measure_distance(ONE, torch.ones_like(ONE)).list_metrics()


def test_close_is_within_the_tolerance_everywhere_and_nan_never_is():
    assert is_close(ONE + 0.5, ONE, atol=0.5, rtol=0)
    assert not is_close(ONE + 0.5, ONE, atol=0.4, rtol=0.02)
    assert is_close(ONE * 1.01, ONE, atol=0, rtol=0.02)
    assert not is_close(ONE * math.nan, ONE * math.nan, atol=1, rtol=1)
    assert not is_close(ONE[..., :1], ONE, atol=9, rtol=9)


def test_other_shapes_and_what_is_on_one_side_only_are_different():
    assert compare_latents("a", ONE[..., :1], ONE, Tolerance(9)).verdict == "different"
    assert compare_latents("a", None, ONE, Tolerance(9)).verdict == "different"
    assert compare_latents("a", ONE + 1, ONE, Tolerance(9)).verdict == "close"


@pytest.fixture
def files(tmp_path):
    torch.save({"samples": ONE}, tmp_path / "dict.pt")
    torch.save(ONE, tmp_path / "tensor.pt")
    save_file({"samples": ONE}, tmp_path / "samples.safetensors")
    mark = {"latent_format_version_0": torch.tensor([])}
    save_file({"latent_tensor": ONE, **mark}, tmp_path / "marked.latent")
    save_file({"latent_tensor": ONE * 0.18215}, tmp_path / "old.latent")
    return tmp_path


@pytest.mark.parametrize("name", ["dict.pt", "tensor.pt", "samples.safetensors", "marked.latent", "old.latent"])
def test_every_form_of_latent_file_is_read(files, name):
    torch.testing.assert_close(read_latent(files / name), ONE)


def test_what_is_no_latent_file_is_refused_and_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"samples": Evil()}, tmp_path / "evil.pt")
    torch.save({"other": 1}, tmp_path / "other.pt")
    (tmp_path / "damaged.latent").write_bytes(b"x" * 100)
    save_file({"a": ONE, "b": ONE + 1}, tmp_path / "two.safetensors")
    for name in ("evil.pt", "other.pt", "damaged.latent", "two.safetensors", "gone.pt", "picture.png"):
        with pytest.raises(RecordError, match=name):
            read_latent(tmp_path / name)


def test_the_command_shows_a_table_and_draws_a_picture(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    torch.save(ONE + 0.25, "other.pt")
    main(["compare", "dict.pt", "marked.latent", "other.pt", "--picture", "sub/c.png"])
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"marked.latent +latent +equal +0 +0 +1 +inf", lines[1])
    assert re.match(r"other.pt +latent +different +0.25 +0.25 +0\.\d+ +24\.\d+", lines[2])
    with Image.open("sub/c.png") as picture:
        assert picture.width > 5 * 256  # three latents and two differences
        assert (255, 255, 255) in {color for _, color in picture.getcolors(2**20)}


@pytest.mark.parametrize(("options", "status"), [(["--atol", "0.3"], 0), (["--atol", "0.2"], 4), ([], 4)])
def test_assert_close_is_for_scripts(files, monkeypatch, options, status):
    monkeypatch.chdir(files)
    torch.save(ONE + 0.25, "other.pt")
    try:
        main(["compare", "dict.pt", "other.pt", "--assert-close", *options])
        found = 0
    except SystemExit as end:
        found = end.code
    assert found == status


def test_files_are_compared_without_comfyui_and_mlflow(files, environment):
    command = [sys.executable, "-X", "importtime", "-m", "pipeline", "compare", "dict.pt", "tensor.pt"]
    done = subprocess.run(command, cwd=files, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"\| +(mlflow|comfy|nodes)$", done.stderr, re.MULTILINE)


def test_the_help_imports_nothing_heavy(tmp_path, environment):
    command = [sys.executable, "-X", "importtime", "-m", "pipeline", "compare", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert done.returncode == 0
    assert not re.findall(r"\| +(torch|mlflow|comfy|nodes|numpy)$", done.stderr, re.MULTILINE)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two runs that differ in their steps, the second held against the first; and where they are."""
    folder = tmp_path_factory.mktemp("store")
    overrides = [*PROBES, f"tracking.uri=sqlite:///{folder}/mlflow.db"]
    first = run(overrides=[*overrides, "sampler.steps=2"], folder=folder / "first")
    reference = f"run.reference={first.mlflow.run_id}"
    return overrides, first, run(overrides=[*overrides, "sampler.steps=1", reference], folder=folder / "second")


def test_a_reference_gives_a_run_its_distance_as_metrics(store):
    overrides, first, second = store
    expected = measure_distance(second.latent, first.latent)
    data = MlflowClient(overrides[-1].partition("=")[2]).get_run(second.mlflow.run_id).data
    assert data.metrics["distance/sampler/max_abs"] == pytest.approx(expected.max_abs)
    assert data.metrics["distance/sampler/psnr"] == pytest.approx(expected.psnr)
    assert "distance/sampler/max_abs" not in first.metrics


def test_a_reference_can_be_a_file_and_an_objective(store, tmp_path):
    _, first, _ = store
    file = f"run.reference={first.folder}/sampler.latent"
    objective = "run.objective=distance/sampler/mean_abs"
    result = run(overrides=[*PROBES, "tracking=none", "sampler.steps=2", file, objective], folder=tmp_path)
    assert result.get_objective("distance/sampler/mean_abs") == 0.0


def test_a_reference_of_another_shape_is_told_and_measures_nothing(store, tmp_path):
    _, first, _ = store
    file = f"run.reference={first.folder}/sampler.latent"
    result = run(overrides=[*PROBES, "tracking=none", "sampler.steps=1", "latent.width=64", file], folder=tmp_path)
    assert not [name for name in result.metrics if name.startswith("distance/")]


@pytest.mark.parametrize("text", ["gone.latent", "abc"])
def test_a_reference_that_is_not_there_is_named_before_the_run(text, store, tmp_path):
    overrides, _, _ = store
    with pytest.raises(ConfigError, match=rf"run\.reference: .*{text}"):
        run(overrides=[*overrides, f"run.reference={text}"], folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_are_compared_with_what_differs_between_them(store, tmp_path, monkeypatch, capsys):
    overrides, first, second = store
    monkeypatch.chdir(tmp_path)
    main(["compare", first.mlflow.run_id, second.mlflow.run_id, overrides[-1]])
    shown = capsys.readouterr().out
    assert "sampler  different" in shown
    assert "  graph.sampler.steps: 2 -> 1" in shown
    assert list(tmp_path.glob("outputs/comparisons/*/*.png"))


def test_another_seed_is_the_first_cause_named(store, tmp_path, monkeypatch, capsys):
    overrides, first, _ = store
    other = run(overrides=[*overrides, "sampler.steps=2", "seed=43"], folder=tmp_path)
    monkeypatch.chdir(tmp_path)
    main(["compare", first.mlflow.run_id, other.mlflow.run_id, overrides[-1]])
    _, told = capsys.readouterr().out.split("the likeliest cause first\n")
    assert told.startswith("  seed.sampler.seed: 42 -> 43\n")
