"""Several processes that record the same new inputs at once, on SQLite and through a real server."""

from __future__ import annotations

import json
import time

import pytest
from mlflow import MlflowClient
from record.mlflow_server import PASSWORD, USER, MLflowServer

from pipeline.base.file_state import FileState
from pipeline.record.tracker import NewRun, Tracker, TrackingSettings

WRITERS, ROUNDS = 8, 2


@pytest.fixture(params=["sqlite", "server"])
def uri(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/mlflow.db"
        return
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    server = MLflowServer(tmp_path)
    server.start()
    yield server.uri
    server.close()


def make_run(folder, number: int) -> NewRun:
    """A run of the round `number`: three tensors and a model that no run before it has read."""
    folder.mkdir()
    names = ("positive", "negative", "latent")
    prompt = {name: {"class_type": "LoadTensor", "inputs": {"round": number}} for name in names}
    (folder / "prompt.json").write_text(json.dumps(prompt))
    model = folder.parent / f"model {number}.safetensors"
    if not model.exists():
        model.write_bytes(b"%d" % number)
    facts = {f"tensor.{name}": f"{number}{name}".encode().hex().ljust(64, "0") for name in names}
    facts |= {f"shape.{name}": "float32 [1, 16]" for name in names}
    return NewRun(f"round {number}", {}, {}, folder, "key", {"unet.unet_name": FileState.of(model)}, facts=facts)


def test_all_of_them_are_recorded_with_one_entry_for_each_input(uri, tmp_path):
    trackers = [Tracker(TrackingSettings(uri, "tests")) for _ in range(WRITERS)]
    for tracker in trackers:
        tracker.store.recall(1)  # its store is open
    ids = []
    for number in range(ROUNDS):
        runs = []
        for place, tracker in enumerate(trackers):
            run = tracker.start(make_run(tmp_path / f"{number} {place}", number), time.time())
            run.add_file(tmp_path / f"{number} {place}/prompt.json")
            runs.append(run)
        for run in runs:
            run.finish("FINISHED", time.time())
        ids.append([run.wait().run_id for run in runs])
    for tracker in trackers:
        tracker.close()

    assert not (tmp_path / "outputs/unsent").exists()
    client = MlflowClient(uri)
    for of_a_round in ids:
        inputs = [client.get_run(run_id).inputs for run_id in of_a_round]
        datasets = [sorted(one.dataset.name for one in given.dataset_inputs) for given in inputs]
        assert datasets == WRITERS * [["latent", "negative", "positive"]]
        models = [[one.model_id for one in given.model_inputs] for given in inputs]
        assert models == WRITERS * [models[0]]
        assert len(models[0]) == 1
    experiment = client.get_experiment_by_name("tests").experiment_id
    assert len(client.search_logged_models([experiment])) == ROUNDS
