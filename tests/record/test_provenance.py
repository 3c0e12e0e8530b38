"""record.json: written by a run with all that it claims, and read in all its versions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from conftest import PROBES

from pipeline import run
from pipeline.base.tensor_digest import digest_tensors
from pipeline.errors import RecordError
from pipeline.record.provenance import read_record


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, session):
    """A run with files for inputs, and its record.json."""
    session.clear()  # what a run only finds in the cache it tells nothing of
    folder = tmp_path_factory.mktemp("run")
    inputs = {"positive.pt": torch.randn(1, 4, 32), "negative.pt": torch.randn(1, 4, 32)}
    for name, tensor in [*inputs.items(), ("latent.pt", torch.zeros(1, 16, 1, 16, 16))]:
        torch.save(tensor, folder / name)
    files = [f"{name}.path={folder}/{name}.pt" for name in ("positive", "negative", "latent")]
    overrides = [*PROBES, "inputs=files", *files, f"tracking.uri=sqlite:///{folder}/mlflow.db"]
    result = run(overrides=[*overrides, "sampler.steps=1", f"seed={2**64 - 1}"], folder=folder / "out")
    return result, json.loads((folder / "out" / "record.json").read_bytes())


def test_a_record_has_the_hash_of_every_file_that_the_graph_names(recorded):
    _, record = recorded
    kinds = {where: file["kind"] for where, file in record["files"].items()}
    assert kinds == {
        "unet.unet_name": "model",
        "lora.lora_name": "model",
        "positive.path": "input",
        "negative.path": "input",
        "latent.path": "input",
    }
    for file in record["files"].values():
        with Path(file["path"]).open("rb") as opened:
            assert file["sha256"] == hashlib.file_digest(opened, "sha256").hexdigest()


def test_a_record_tells_tensors_by_their_content(recorded):
    result, record = recorded
    assert record["outputs"] == {"sampler": digest_tensors(result.latent)}
    (conditioning,) = [result.folder.parent / "positive.pt"]
    assert record["facts"]["tensor.positive"] == digest_tensors([[[torch.load(conditioning, weights_only=True), {}]]])


def test_a_record_has_the_facts(recorded, session):
    facts = recorded[1]["facts"]
    assert facts["version.comfyui"] == session.comfyui.installation.version
    assert facts["seed.sampler.seed"] == "18446744073709551615"
    assert facts["package.torch"] == torch.__version__.partition("+")[0]
    assert facts["dtype.unet"] == "torch.float32, computes in torch.float32"
    assert len(facts["code.KSampler"]) == 64
    assert facts.keys() >= {
        *("git.commit", "device", "reproducible", "dynamic_vram", "cached", "process.order", "process.command"),
        *("comfyui.attention", "comfyui.vram_state", "comfyui.code", "host.name", "host.cpu", "torch.deterministic"),
    }


def test_the_order_counts_the_runs_of_the_process(recorded, session, tmp_path):
    before = int(recorded[1]["facts"]["process.order"])
    overrides = [*PROBES, f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", "sampler.steps=1", "seed=5"]
    run(overrides=overrides, folder=tmp_path)
    record = read_record((tmp_path / "record.json").read_bytes())
    assert int(record.facts["process.order"]) > before
    assert "unet" in record.facts["cached"]


def test_a_run_that_is_served_from_the_cache_tells_its_inputs_all_the_same(session, tmp_path):
    overrides = [*PROBES, f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", "sampler.steps=1", "seed=6"]
    first, second = (run(overrides=overrides, folder=tmp_path / name) for name in ("first", "second"))
    assert second.executed == ()
    told = {name: text for name, text in first.facts.items() if name.startswith(("tensor.", "dtype."))}
    assert {"tensor.positive", "tensor.latent", "dtype.unet"} <= told.keys()
    assert told.items() <= second.facts.items()


def test_a_record_of_the_first_version_is_read():
    first = {"identity": "key", "files": {"unet.unet_name": "abc"}, "artifacts": {"a": "1"}, "pictures": {}}
    record = read_record(json.dumps(first))
    assert (record.version, record.identity, record.facts, record.outputs) == (1, "key", {}, {})
    assert record.files == record.models == {"unet.unet_name": "abc"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 3}', "is of version 3, but this latentgrid reads up to 2"),
        ('{"version": 2}', r"is damaged \(KeyError"),
        ("[]", "is damaged"),
        ('{"identity": ', "is damaged"),
    ],
)
def test_what_cannot_be_read_is_a_record_error(text, message):
    with pytest.raises(RecordError, match=message):
        read_record(text)
