"""The tracker and its writer process, on the real MLflow with SQLite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient

from pipeline.errors import TrackingError
from pipeline.record.tracker import Tracker, TrackingSettings


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    """One store for all tests here, each with an experiment of its own: making a store takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def experiment(request) -> str:
    return request.node.name


@pytest.fixture
def tracker(uri, experiment):
    tracker = Tracker(TrackingSettings(uri, experiment))
    yield tracker
    tracker.close()


def test_a_run_is_recorded_whole(tracker, uri, experiment, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    (tmp_path / "notes.txt").write_text("hello")
    tracker.start("steps=8", {"sampler.steps": "8", "seed": str(2**64 - 1)}, {"version.torch": "2"}, started=1000.5)
    tracker.log([("seconds_per_step/sampler", 0.5, 1001.0, 1), ("seconds_per_step/sampler", 0.25, 1002.0, 2)])
    tracker.log(tags={"cached": "none"})
    tracker.add_file(tmp_path / "notes.txt")
    tracker.add_file(tmp_path / "picture.png", picture_key="sampler")
    where = tracker.finish("FINISHED", ended=1003.0)

    client = MlflowClient(uri)
    run = client.get_run(where.run_id)
    assert run.info.experiment_id == where.experiment_id == client.get_experiment_by_name(experiment).experiment_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", "steps=8")
    assert (run.info.start_time, run.info.end_time) == (1_000_500, 1_003_000)
    assert run.data.params == {"sampler.steps": "8", "seed": "18446744073709551615"}
    assert run.data.tags.items() >= {"version.torch": "2", "cached": "none"}.items()
    history = client.get_metric_history(where.run_id, "seconds_per_step/sampler")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]
    names = [file.path for file in client.list_artifacts(where.run_id)]
    assert {"notes.txt", "picture.png", "images"} <= set(names)
    assert any("sampler" in file.path for file in client.list_artifacts(where.run_id, "images"))


def test_a_run_is_running_until_it_is_finished(tracker, uri, experiment):
    tracker.start("long", {}, {}, started=time.time())
    tracker.log(tags={"marker": "1"})
    client = MlflowClient(uri)
    run = wait_for_run(client, experiment)
    assert run.info.status == "RUNNING"
    tracker.finish("FAILED", time.time())
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def test_several_runs_share_one_writer(tracker, uri):
    ids = []
    for index in range(3):
        tracker.start(f"run {index}", {"index": str(index)}, {}, started=time.time())
        ids.append(tracker.finish("FINISHED", time.time()).run_id)
    client = MlflowClient(uri)
    assert [client.get_run(run_id).data.params["index"] for run_id in ids] == ["0", "1", "2"]


def test_more_params_and_metrics_than_fit_a_batch(tracker, uri):
    tracker.start("many", {f"p{i}": str(i) for i in range(250)}, {}, started=time.time())
    tracker.log([("m", float(i), time.time(), i) for i in range(2500)])
    run_id = tracker.finish("FINISHED", time.time()).run_id
    client = MlflowClient(uri)
    assert len(client.get_run(run_id).data.params) == 250
    assert len(client.get_metric_history(run_id, "m")) == 2500


def test_a_run_whose_process_is_killed_is_recorded_as_killed(uri, experiment, environment):
    code = (
        "import time; from pipeline.record.tracker import *;"
        f"tracker = Tracker(TrackingSettings({uri!r}, {experiment!r}));"
        "tracker.start('doomed', {}, {}, time.time()); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    client = MlflowClient(uri)
    run = wait_for_run(client, experiment)
    assert run.info.status == "RUNNING"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ended = wait_for(lambda: (found := client.get_run(run.info.run_id)).info.status != "RUNNING" and found)
    assert ended.info.status == "KILLED"
    assert ended.data.tags["error"] == "the process that ran it died without a word"


def test_a_record_that_cannot_be_written_does_not_stay_running(uri, experiment, tmp_path):
    tracker = Tracker(TrackingSettings(uri, experiment))
    tracker.start("run", {}, {}, started=time.time())
    tracker.add_file(tmp_path / "missing")
    with pytest.raises(TrackingError, match="missing"):
        tracker.finish("FINISHED", time.time())
    assert tracker.failed
    tracker.close()
    run = wait_for_run(MlflowClient(uri), experiment)
    assert run.info.status == "FAILED"
    assert "missing" in run.data.tags["error"]


def test_names_that_mlflow_refuses_are_changed(tracker, uri):
    tracker.start("run", {"x.\u2795 Add Lora": "1", "a.b:c": "2"}, {}, started=time.time())
    tracker.log([("seconds/x.\u2795", 1.0, time.time(), 0)])
    data = MlflowClient(uri).get_run(tracker.finish("FINISHED", time.time()).run_id).data
    assert data.params == {"x._ Add Lora": "1", "a.b_c": "2"}
    assert data.metrics == {"seconds/x._": 1.0}


def test_two_processes_may_make_the_store_at_once(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    trackers = [Tracker(TrackingSettings(uri, "tests")) for _ in range(2)]
    for tracker in trackers:
        tracker.start("first", {}, {}, started=time.time())
    ids = {tracker.finish("FINISHED", time.time()).experiment_id for tracker in trackers}
    for tracker in trackers:
        tracker.close()
    assert len(ids) == 1


def test_a_store_that_cannot_be_opened_is_a_tracking_error():
    tracker = Tracker(TrackingSettings("nonsense://x", "tests"))
    tracker.start("run", {}, {}, started=time.time())
    with pytest.raises(TrackingError, match=r"tracking\.uri: MLflow at 'nonsense://x' failed: .*nonsense"):
        tracker.finish("FINISHED", time.time())
    with pytest.raises(TrackingError, match="tracking=none"):
        tracker.raise_if_failed()
    tracker.close()


def wait_for(condition):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("waited for two minutes in vain")


def wait_for_run(client: MlflowClient, experiment: str):
    def look():
        found = client.get_experiment_by_name(experiment)
        runs = client.search_runs([found.experiment_id]) if found else []
        return runs[0] if runs else None

    return wait_for(look)
