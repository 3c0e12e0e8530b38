"""What MLflow has of a run besides params, metrics and files: description, inputs, system metrics."""

from __future__ import annotations

import json
import time

import pytest
from mlflow import MlflowClient
from patience import PATIENCE

from pipeline.base.file_state import FileState
from pipeline.record.artifacts import write_prompt
from pipeline.record.note import LONGEST, NOTE, begin_note, fail_note, finish_note
from pipeline.record.tracker import NewRun, Tracker, TrackingSettings

SHA256 = "a" * 64


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    """One store for all tests here: making a store takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def test_the_inputs_of_runs_are_one_entry_for_each_content(uri, tmp_path):
    model, tensor = tmp_path / "demo.v1.safetensors", tmp_path / "positive.pt"
    model.write_bytes(b"weights")
    tensor.write_bytes(b"tensor")
    write_prompt(tmp_path, {"positive": {"class_type": "Load", "inputs": {"path": str(tensor)}}})
    tracker = Tracker(TrackingSettings(uri, "inputs"))
    new = NewRun(
        "run",
        {},
        {NOTE: begin_note({"seed": "1"}, "python run.py")},
        tmp_path,
        identity="key",
        files={"unet.unet_name": FileState.of(model)},
        inputs={"positive.path": FileState.of(tensor)},
    )
    ids = []
    for _ in range(2):
        run = tracker.start(new, time.time())
        run.finish("FINISHED", time.time(), {"tensor.positive": SHA256, "shape.positive": "float32 [1, 4, 32]"})
        ids.append(run.wait().run_id)
    tracker.close()

    client = MlflowClient(uri)
    one, two = (client.get_run(run_id) for run_id in ids)
    (dataset,) = [one.dataset for one in one.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest, dataset.source_type) == ("positive", SHA256[:16], "local")
    assert json.loads(dataset.source) == {"uri": str(tensor)}
    profile = json.loads(dataset.profile)
    assert (profile["tensor_sha256"], profile["dtype"], profile["shape"]) == (SHA256, "float32", [1, 4, 32])
    assert len(profile["file_sha256.positive.path"]) == 64
    assert one.inputs.dataset_inputs == two.inputs.dataset_inputs
    (logged,) = client.search_logged_models([one.info.experiment_id])
    assert (logged.name, logged.model_type, logged.tags["path"]) == ("demo_v1_safetensors", "unet_name", str(model))
    assert [model.model_id for model in two.inputs.model_inputs] == [logged.model_id]
    assert f"python -m pipeline rerun {ids[0]} --verify" in one.data.tags[NOTE]


def test_system_metrics_are_logged_on_request(uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    tracker = Tracker(TrackingSettings(uri, "system", system_metrics=True))
    run = tracker.start(NewRun("run", {}, {"marker": "1"}, tmp_path), time.time())
    client = MlflowClient(uri)
    deadline = time.monotonic() + PATIENCE
    while not (found := find_metrics(client)) and time.monotonic() < deadline:
        time.sleep(0.2)
    run.finish("FINISHED", time.time())
    run.wait()
    tracker.close()
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= found


def find_metrics(client: MlflowClient) -> set[str]:
    experiment = client.get_experiment_by_name("system")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return {name for run in runs for name in run.data.metrics}


def test_the_note_of_a_run_that_was_taken_over_names_the_run_that_computed_it():
    first = finish_note(begin_note({"seed": "1"}, "python run.py seed=1"), "3", "first", ["sampler.png"])
    second = finish_note(first, "3", "second", ["sampler.png"], taken_from="first")
    assert "(#/experiments/3/runs/first)" in second
    assert "rerun second --verify" in second
    assert "rerun first" not in second
    assert second.endswith(begin_note({"seed": "1"}, "python run.py seed=1"))


def test_the_note_of_a_run_that_failed_says_why_and_what_was_set():
    note = fail_note(begin_note({"seed": "1"}, "python run.py seed=1"), "RuntimeError: out of luck")
    assert "RuntimeError: out of luck" in note
    assert "python run.py seed=1" in note


def test_a_note_fits_into_a_tag_of_mlflow():
    note = begin_note({f"node_{number}.text": "x" * 40 for number in range(500)}, "python run.py")
    assert len(finish_note(note, "1", "f" * 32, [f"picture_{number}.png" for number in range(50)])) <= LONGEST
    assert len(fail_note(note, "x" * 10_000)) <= LONGEST


def test_text_cannot_break_the_table_of_a_note():
    note = begin_note({"positive.text": "a | b\n| `c`"}, "python run.py")
    assert note.splitlines()[-1] == r"| `positive.text` | `` a \| b \| `c` `` |"
