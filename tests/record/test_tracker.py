"""The tracker and its writer process, on the real MLflow with SQLite."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from patience import PATIENCE

from pipeline.base.waiting import Waiting
from pipeline.errors import TrackingError
from pipeline.record.tracker import MLflowRun, NewRun, TrackedRun, Tracker, TrackingSettings


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
    params = {"sampler.steps": "8", "seed": str(2**64 - 1)}
    run = tracker.start(NewRun("steps=8", params, {"version.torch": "2"}, tmp_path), started=1000.5)
    run.log([("seconds_per_step/sampler", 0.5, 1001.0, 1), ("seconds_per_step/sampler", 0.25, 1002.0, 2)])
    run.log(tags={"cached": "none"})
    run.add_file(tmp_path / "notes.txt")
    run.add_file(tmp_path / "picture.png", picture_key="sampler")
    run.finish("FINISHED", ended=1003.0)
    where = run.wait()

    client = MlflowClient(uri)
    found = client.get_run(where.run_id)
    assert found.info.experiment_id == where.experiment_id == client.get_experiment_by_name(experiment).experiment_id
    assert (found.info.status, found.info.run_name) == ("FINISHED", "steps=8")
    assert (found.info.start_time, found.info.end_time) == (1_000_500, 1_003_000)
    assert found.data.params == {"sampler.steps": "8", "seed": "18446744073709551615"}
    assert found.data.tags.items() >= {"version.torch": "2", "cached": "none"}.items()
    history = client.get_metric_history(where.run_id, "seconds_per_step/sampler")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]
    names = [file.path for file in client.list_artifacts(where.run_id)]
    assert {"notes.txt", "picture.png", "images"} <= set(names)
    assert any("sampler" in file.path for file in client.list_artifacts(where.run_id, "images"))


def test_a_run_is_running_until_it_is_finished(tracker, uri, experiment, tmp_path):
    run = tracker.start(NewRun("long", {}, {}, tmp_path), started=time.time())
    run.log(tags={"marker": "1"})
    client = MlflowClient(uri)
    assert wait_for_run(client, experiment).info.status == "RUNNING"
    run.finish("FAILED", time.time())
    assert client.get_run(run.wait().run_id).info.status == "FAILED"


def test_several_runs_share_one_writer(tracker, uri, tmp_path):
    runs = []
    for index in range(3):
        runs.append(tracker.start(NewRun(f"run {index}", {"index": str(index)}, {}, tmp_path), started=time.time()))
        runs[-1].finish("FINISHED", time.time())
    ids = [run.wait().run_id for run in reversed(runs)]
    client = MlflowClient(uri)
    assert [client.get_run(run_id).data.params["index"] for run_id in ids] == ["2", "1", "0"]


def test_a_run_may_stand_below_another_that_is_still_open(tracker, uri, tmp_path):
    above = tracker.start(NewRun("above", {}, {}, tmp_path), started=time.time())
    below = tracker.start(NewRun("below", {}, {}, tmp_path), started=time.time(), parent=above)
    above.log(tags={"of": "above"})
    below.log(tags={"of": "below"})
    below.finish("FAILED", time.time())
    above.finish("FINISHED", time.time())
    client = MlflowClient(uri)
    outer, inner = (client.get_run(run.wait().run_id) for run in (above, below))
    assert inner.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert [(run.info.status, run.data.tags["of"]) for run in (outer, inner)] == [
        ("FINISHED", "above"),
        ("FAILED", "below"),
    ]


def test_more_params_and_metrics_than_fit_a_batch(tracker, uri, tmp_path):
    run = tracker.start(NewRun("many", {f"p{i}": str(i) for i in range(250)}, {}, tmp_path), started=time.time())
    run.log([("m", float(i), time.time(), i) for i in range(2500)])
    run.finish("FINISHED", time.time())
    run_id = run.wait().run_id
    client = MlflowClient(uri)
    assert len(client.get_run(run_id).data.params) == 250
    assert len(client.get_metric_history(run_id, "m")) == 2500


def test_a_run_whose_process_is_killed_is_recorded_as_killed(uri, experiment, environment):
    code = (
        "import time; from pipeline.record.tracker import *;"
        f"tracker = Tracker(TrackingSettings({uri!r}, {experiment!r}));"
        "tracker.start(NewRun('doomed', {}, {}, Path.cwd()), time.time()); time.sleep(600)"
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


def test_a_record_that_cannot_be_written_is_lost_alone(tracker, uri, experiment, tmp_path):
    above = tracker.start(NewRun("above", {}, {}, tmp_path), started=time.time())
    run = tracker.start(NewRun("bad", {}, {}, tmp_path), started=time.time(), parent=above)
    run.add_file(tmp_path / "missing")
    with pytest.raises(TrackingError, match="missing"):
        finish(run)
    run.log(tags={"told": "in vain"})
    good = finish(tracker.start(NewRun("good", {}, {}, tmp_path), started=time.time(), parent=above))
    with pytest.raises(TrackingError, match=r"did not take the records of bad: .*missing'\nTheir results are kept"):
        finish(above)
    assert not tracker.failed
    client = MlflowClient(uri)
    runs = {run.info.run_name: run for run in list_runs(client, experiment)}
    assert {name: run.info.status for name, run in runs.items()} == {
        "above": "FINISHED",
        "bad": "FAILED",
        "good": "FINISHED",
    }
    assert "missing" in runs["bad"].data.tags["error"]
    assert runs["good"].info.run_id == good.run_id
    assert runs["good"].data.tags["mlflow.parentRunId"] == runs["above"].info.run_id


def test_a_writer_that_is_killed_has_another_one_complete_its_runs(tracker, uri, experiment, tmp_path, caplog):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    above = tracker.start(NewRun("above", {}, {}, tmp_path), started=1000)
    whole = tracker.start(NewRun("whole", {}, {}, tmp_path), started=1001, parent=above)
    finish(whole)
    cut = tracker.start(NewRun("cut", {"seed": "1"}, {}, tmp_path), started=1002, parent=above)
    cut.add_file(tmp_path / "picture.png", picture_key="sampler")
    cut.log([("loss", 0.5, 1000.0, 1)])
    tracker.store.recall(1)  # so the store has all this
    kill_writer(tracker)
    cut.log([("loss", 0.25, 1001.0, 2)])
    finish(cut)
    finish(tracker.start(NewRun("after", {}, {}, tmp_path), started=1003, parent=above))
    finish(above)

    client = MlflowClient(uri)
    runs = list_runs(client, experiment)
    assert [(run.info.run_name, run.info.status) for run in runs] == [
        (name, "FINISHED") for name in ("above", "whole", "cut", "after")
    ]
    assert [run.data.tags.get("mlflow.parentRunId") for run in runs] == [None, *3 * [runs[0].info.run_id]]
    assert all("error" not in run.data.tags for run in runs)
    history = client.get_metric_history(runs[2].info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]
    pictures = client.list_artifacts(runs[2].info.run_id, "images")
    assert len([one for one in pictures if one.path.endswith(".png")]) == 1
    assert "Another one writes what it had not finished" in caplog.text


def test_an_answer_of_a_writer_that_dies_is_asked_for_again(own_python, tracker, tmp_path):
    finish(tracker.start(NewRun("one", {"p": "1"}, {}, tmp_path), started=time.time()))
    os.kill(get_writer(tracker), signal.SIGSTOP)  # so that it cannot answer before it is killed
    threading.Timer(0.5, kill_writer, [tracker]).start()
    assert [run["params"] for run in tracker.store.recall(1)] == [{"p": "1"}]


def test_a_writer_that_dies_again_and_again_is_given_up(uri, experiment, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.record.writer_process.WRITER", "pipeline.no_such_module")
    tracker = Tracker(TrackingSettings(uri, experiment))
    run = tracker.start(NewRun("lost", {}, {}, tmp_path), started=time.time())
    with pytest.raises(TrackingError, match=r"ended 3 times(?s:.*)no_such_module(?s:.*)\nNot recorded: lost\n"):
        finish(run)
    assert tracker.failed
    tracker.close()


def test_an_answer_that_nobody_waits_for_is_passed_over(tracker, experiment, tmp_path, monkeypatch):
    def be_interrupted():
        raise KeyboardInterrupt

    def ask_and_be_interrupted():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(tracker._link._writer, "receive", be_interrupted)
            tracker.store.list_runs(experiment, 5)

    finish(tracker.start(NewRun("one", {}, {}, tmp_path), started=time.time()))
    ask_and_be_interrupted()
    assert tracker.store.list_runs("nowhere", 5) == []
    ask_and_be_interrupted()
    finish(tracker.start(NewRun("two", {}, {}, tmp_path), started=time.time()))
    assert {run["name"] for run in tracker.store.list_runs(experiment, 5)} == {"one", "two"}


# What a library may print, and an answer in the middle of which it is killed.
HALF = (
    "import os, sys; sys.stdin.readline(); os.write(1, b'\\xff hello\\n3\\n{\"opened\": tr'); os.kill(os.getpid(), 9)"
)


def test_a_writer_that_dies_within_an_answer_is_given_up_too(uri, experiment, tmp_path, monkeypatch):
    (tmp_path / "half_writer.py").write_text(HALF)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("pipeline.record.writer_process.WRITER", "half_writer")
    tracker = Tracker(TrackingSettings(uri, experiment))
    writer = tracker._link._writer
    writer._listener.join(PATIENCE)  # else this test would hang for ever
    died = writer.receive_waiting() or {}
    assert "died" in died
    writer._answers.put(died)
    with pytest.raises(TrackingError, match="ended 3 times"):
        finish(tracker.start(NewRun("lost", {}, {}, tmp_path), started=time.time()))
    tracker.close()


def test_what_is_waited_for_is_said(uri, experiment, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("pipeline.base.waiting.SAID_AFTER", 0.0)
    lock, said = FileLock(f"{uri.removeprefix('sqlite:///')}.lock"), []

    class LetGo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            lock.release()  # without the line nobody would

    handler = LetGo(logging.INFO)
    logger = logging.getLogger("pipeline.base.waiting")
    logger.addHandler(handler)
    try:
        with lock:
            tracker = Tracker(TrackingSettings(uri, experiment))
            finish(tracker.start(NewRun("run", {}, {}, tmp_path), started=time.time()))
    finally:
        logger.removeHandler(handler)
        tracker.close()
    assert said[0] == f"waiting for MLflow to open {uri}"


def test_after_a_minute_it_is_said_what_to_do(caplog):
    caplog.set_level(logging.INFO)
    waiting = Waiting()
    waiting.look("paint to dry", "Open a window")
    assert not caplog.messages
    waiting._since -= 61
    for _ in range(3):
        waiting.look("paint to dry", "Open a window")
    assert caplog.messages == ["waiting for paint to dry", "waiting for paint to dry since 61 s. Open a window"]


def test_names_that_mlflow_refuses_are_changed_and_stay_apart(tracker, uri, tmp_path):
    from PIL import Image

    taken = ["sampler.steps", "a.宽度", "a.高度", "a.b:c", "n. x-y_z/w"]
    refused = [
        "x.\u2795 Add Lora",
        "x.\u2796 Add Lora",
        "a?",
        "a!",
        "a_",
        "/a",
        "//a",
        "a/../b",
        "a\n",
        "",
        "..",
        "\ud800",
    ]
    names = [*taken, *refused, "y" * 251, "y" * 252]
    run = tracker.start(NewRun("run", {name: repr(name) for name in names}, {}, tmp_path), started=time.time())
    run.log([(name, float(index), time.time(), 0) for index, name in enumerate(names)])
    for index, name in enumerate(("宽度", "高度", "z" * 200)):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (8, 8)).save(path)
        run.add_file(path, picture_key=name)
    run_id = finish(run).run_id
    client = MlflowClient(uri)
    data = client.get_run(run_id).data
    assert len(data.params) == len(names)
    assert sorted(data.metrics.values()) == [float(index) for index in range(len(names))]
    assert data.params.keys() == data.metrics.keys()
    assert [data.params.get(name) for name in [*taken, "a_"]] == [repr(name) for name in [*taken, "a_"]]
    assert [key for key, name in data.params.items() if name == "'a?'"] == ["a__5289f1df"]
    pictures = [one.path.partition("+")[0] for one in client.list_artifacts(run_id, "images")]
    assert len(set(pictures)) == 3


def test_two_processes_may_make_the_store_at_once(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    trackers = [Tracker(TrackingSettings(uri, "tests")) for _ in range(2)]
    runs = [tracker.start(NewRun("first", {}, {}, tmp_path), started=time.time()) for tracker in trackers]
    ids = {finish(run).experiment_id for run in runs}
    for tracker in trackers:
        tracker.close()
    assert len(ids) == 1


def test_a_store_that_cannot_be_opened_is_a_tracking_error(tmp_path):
    tracker = Tracker(TrackingSettings("nonsense://x", "tests"))
    run = tracker.start(NewRun("run", {}, {}, tmp_path), started=time.time())
    with pytest.raises(TrackingError, match=r"tracking\.uri: MLflow at 'nonsense://x' failed: .*nonsense"):
        finish(run)
    with pytest.raises(TrackingError, match="tracking=none"):
        tracker.raise_if_failed()
    tracker.close()


def test_an_experiment_that_is_deleted_is_refused_with_advice(uri, experiment, tmp_path):
    client = MlflowClient(uri)
    made = client.create_experiment(experiment)
    client.delete_experiment(made)
    tracker = Tracker(TrackingSettings(uri, experiment))
    run = tracker.start(NewRun("run", {}, {}, tmp_path), started=time.time())
    said = f"tracking.experiment_name: is deleted .*, got '{experiment}'.* restore --experiment-id {made};"
    with pytest.raises(TrackingError, match=said):
        finish(run)
    with pytest.raises(TrackingError, match=said):
        tracker.raise_if_failed()  # by which the next run ends before it begins
    tracker.close()
    reader = Tracker(TrackingSettings(uri))
    assert reader.store.list_runs(experiment, 1) == []
    reader.close()


def finish(run: TrackedRun) -> MLflowRun:
    run.finish("FINISHED", time.time())
    return run.wait()


def get_writer(tracker: Tracker) -> int:
    return tracker._link._writer._process.pid


def kill_writer(tracker: Tracker) -> None:
    os.kill(get_writer(tracker), signal.SIGKILL)


def list_runs(client: MlflowClient, experiment: str):
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
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
