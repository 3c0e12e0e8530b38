"""sample_latent on the tiny model, in this process, and the same as a command in another."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROBES
from mlflow import MlflowClient
from patience import PATIENCE

from pipeline import run, sample_latent
from pipeline.errors import ConfigError, NodeError
from pipeline.models.tiny import tiny_folder
from pipeline.service import sample_latent as module
from pipeline.service.errors import (
    InputTensorNotFoundError,
    LoRAModelNotFoundError,
    OutputDirNotWritableError,
    SamplingFailedError,
    UNETModelNotFoundError,
)


@pytest.fixture(autouse=True)
def base(session, monkeypatch, tmp_path) -> list[str]:
    """The config that requests start from, with a store of its own."""
    overrides = ["experiment=tiny", *PROBES, f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"]
    monkeypatch.setenv("LATENTGRID_SAMPLING", " ".join(overrides))
    return overrides


@pytest.fixture
def inputs(session) -> dict[str, str]:
    files = {"positive_encoding": "positive", "negative_encoding": "negative", "latent_image": "latent"}
    return {name: str(tiny_folder() / f"{file}.pt") for name, file in files.items()}


def load(path: str) -> Any:
    return torch.load(path, weights_only=True)


def test_files_give_a_file_and_the_record_of_any_run(inputs, base, tmp_path):
    given = sample_latent(**inputs, seed=12345, steps=2, output_dir=tmp_path / "out", request_id="request-1")
    path = Path(given["sampled_latent_tensor"])
    assert path == tmp_path / "out/request-1/sampler.pt"
    samples = load(str(path))["samples"]
    assert given["sampled_latent_shape"] == list(samples.shape)
    overrides = [*base, "seed=12345", "sampler.steps=2"]
    assert torch.equal(samples, run(overrides=overrides, folder=tmp_path / "run").latent)

    metadata = given["metadata"]
    assert json.loads(json.dumps(metadata)) == metadata
    assert (metadata["request_id"], metadata["seed"]) == ("request-1", 12345)
    assert metadata["settings"]["shift"] == 3
    assert metadata["seconds"]["total"] > metadata["seconds"]["sampling"] > 0
    model = tiny_folder() / "models/diffusion_models" / metadata["models"]["unet_model_name"]["name"]
    assert metadata["models"]["unet_model_name"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    recorded = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(metadata["run_id"])
    assert (recorded.info.status, recorded.info.run_name) == ("FINISHED", "request-1")
    assert recorded.data.params["seed"] == "12345"
    assert "seed=12345" in recorded.data.tags["mlflow.note.content"]


def test_values_give_what_their_files_give(inputs, tmp_path):
    by_file = sample_latent(**inputs, seed=1, steps=1, output_dir=tmp_path, save_tensor=False)["sampled_latent_tensor"]
    values = {name: load(path) for name, path in inputs.items()}
    ((positive, metadata),) = values["positive_encoding"]
    values["positive_encoding"] = [(torch.cat([positive] * 9)[:1], metadata)]
    given = sample_latent(**values, seed=1, steps=1, output_dir=tmp_path, request_id="b", save_tensor=False)
    assert torch.equal(given["sampled_latent_tensor"], by_file)
    assert not (tmp_path / "b/sampler.pt").exists()
    assert (tmp_path / "b/positive.pt").stat().st_size < 2 * positive.nbytes + 4096  # the view, not what it is of
    values["latent_image"] = values["latent_image"]["samples"]
    given = sample_latent(**values, seed=1, steps=1, output_dir=tmp_path, save_tensor=False)
    assert torch.equal(given["sampled_latent_tensor"], by_file)


def test_a_seed_is_drawn_and_reported(inputs, tmp_path):
    first, second = (sample_latent(**inputs, steps=1, output_dir=tmp_path, save_tensor=False) for _ in range(2))
    assert first["metadata"]["seed"] != second["metadata"]["seed"]
    assert not torch.equal(first["sampled_latent_tensor"], second["sampled_latent_tensor"])
    seed = first["metadata"]["seed"]
    again = sample_latent(**inputs, steps=1, seed=seed, output_dir=tmp_path, save_tensor=False)
    assert torch.equal(first["sampled_latent_tensor"], again["sampled_latent_tensor"])


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"unet_model_name": "x.safetensors"}, UNETModelNotFoundError, "unet.unet_name: 'x.safetensors' is not"),
        ({"lora_model_name": "x.safetensors"}, LoRAModelNotFoundError, "lora.lora_name: 'x.safetensors' is not"),
        ({"positive_encoding": "/missing/a.pt"}, InputTensorNotFoundError, "positive.path: .*does not exist"),
        ({"steps": 0}, ConfigError, "sampler.steps: must be at least 1, got 0"),
        ({"latent_image": 3}, ConfigError, "latent_image: must be a path, a tensor, .* got int"),
        ({"latent_image": [lambda: 0]}, ConfigError, "latent_image: must hold tensors in plain values"),
        ({"unet_model_name": Path("x")}, ConfigError, "unet.unet_name: must be a text or a number, got PosixPath"),
        ({"request_id": "../x"}, ConfigError, "request_id: must be .* got '../x'"),
        ({"request_id": 5}, ConfigError, "request_id: must be .* got 5"),
        ({"output_dir": 5}, ConfigError, "output_dir: must be a path, got 5"),
        ({"output_dir": "/proc/none"}, OutputDirNotWritableError, "the output folder cannot be written"),
        ({"steps": 0, "unet_model_name": "x"}, UNETModelNotFoundError, "sampler.steps: must be at least 1"),
    ],
)
def test_a_mistake_has_a_name(inputs, tmp_path, wrong, kind, message):
    with pytest.raises(kind, match=message) as caught:
        sample_latent(**{**inputs, "output_dir": tmp_path, **wrong})
    assert type(caught.value) is kind


def test_a_node_that_fails_has_a_name(inputs, tmp_path, monkeypatch):
    error = NodeError("sampler", "KSampler", {"steps": "4"}, RuntimeError("no"))
    monkeypatch.setattr(module, "run_config", lambda *given, **named: (_ for _ in ()).throw(error))
    with pytest.raises(SamplingFailedError, match="sampler: KSampler failed: RuntimeError: no"):
        sample_latent(**inputs, output_dir=tmp_path)


def test_the_command_prints_the_result(inputs, base, environment, tmp_path):
    flags = [word for name, path in inputs.items() for word in (f"--{name}", path)]
    command = [sys.executable, "-m", "pipeline", "sample", *flags, "--seed", "7", "--steps", "1", "--output_dir", "out"]
    environment["LATENTGRID_SAMPLING"] = "experiment=tiny tracking=none"
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    given = json.loads(done.stdout)
    assert (given["metadata"]["seed"], given["metadata"]["run_id"]) == (7, None)
    assert load(given["sampled_latent_tensor"])["samples"].shape == torch.Size(given["sampled_latent_shape"])
    environment["LATENTGRID_SAMPLING"] = "inputs=demo tracking=none"
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "positive.path: is no setting of the config of 'inputs=demo tracking=none'" in done.stderr
