"""Records on a real MLflow server with authentication: while it answers, and while it does not."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image
from record.mlflow_server import PASSWORD, USER, MLflowServer

from pipeline.base.file_hashes import FileHashes
from pipeline.errors import RecordError, TrackingError
from pipeline.record.tracker import NewRun, Tracker, TrackingSettings
from pipeline.record.writer.finished_runs import FinishedRuns
from pipeline.record.writer.process import Writer
from pipeline.record.writer.store import UNSENT, is_out_of_reach
from pipeline.record.writer.unsent import UnsentRuns, list_files

LATER = itertools.count()  # no two runs begin in the same millisecond, so they can be told by their order


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = MLflowServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def place(server, tmp_path, monkeypatch):
    """A server that answers, where the tests work, and what lets them in."""
    server.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


@pytest.fixture
def experiment(request) -> str:
    return request.node.name


@pytest.fixture
def tracker(server, experiment):
    tracker = Tracker(TrackingSettings(server.uri, experiment))
    yield tracker
    tracker.close()


def begin(tracker, folder, name, parent=None):
    """A run with a param, and two files of which one is a picture."""
    folder.mkdir()
    new = NewRun(name, {"seed": name}, {"device": "cpu"}, folder, f"key of {name}")
    run = tracker.start(new, time.time() + next(LATER), parent)
    (folder / "notes.txt").write_text(name)
    Image.new("RGB", (8, 8)).save(folder / "picture.png")
    run.add_file(folder / "notes.txt")
    run.add_file(folder / "picture.png", picture_key="sampler")
    return run


def finish(run):
    run.log([("loss", 1 / step, 1000.0 + step, step) for step in range(1, 1501)])
    run.finish("FINISHED", time.time())
    return run.wait()


def find_runs(uri, experiment):
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]) if found else []
    return client, runs


def check_whole(client, run, name):
    """That all of a run is there, once."""
    assert (run.info.run_name, run.info.status) == (name, "FINISHED")
    assert run.data.params == {"seed": name}
    assert run.data.tags["identity"] == f"key of {name}"
    assert "error" not in run.data.tags
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == list(range(1, 1501))
    files = dict(list_files(client, run.info.run_id))
    pictures = sorted(path.rpartition(".")[2] for path in files if path.startswith("images/"))
    assert pictures == ["png", "webp"]
    assert {path for path in files if "/" not in path} == {"notes.txt", "picture.png", "record.json"}
    assert files["notes.txt"] == len(name)


def test_a_run_is_recorded_found_and_taken_over(tracker, server, experiment, tmp_path):
    run = finish(begin(tracker, tmp_path / "run", "one"))
    client, (found,) = find_runs(server.uri, experiment)
    assert (found.info.run_id, server.uri) == (run.run_id, run.uri)
    check_whole(client, found, "one")
    (known,) = tracker.store.find_finished([("key of one", {})])
    assert known.run_id == run.run_id
    linked = tracker.link("again", run.run_id, tmp_path / "linked", time.time(), None).wait()
    assert client.get_run(linked.run_id).data.tags["linked_run_id"] == run.run_id
    assert (tmp_path / "linked" / "notes.txt").read_text() == "one"
    assert tracker.store.read(linked.run_id, tmp_path / "read").record.artifacts.keys() == {"notes.txt", "picture.png"}


def test_a_wrong_password_is_found_before_anything_runs(server, experiment, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    tracker = Tracker(TrackingSettings(server.uri, experiment))
    with pytest.raises(TrackingError, match=r"Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        tracker.raise_if_failed()
    tracker.close()


def test_a_deleted_experiment_is_found_before_anything_runs(server, experiment):
    client = MlflowClient(server.uri)
    client.delete_experiment(client.create_experiment(experiment))
    tracker = Tracker(TrackingSettings(server.uri, experiment))
    with pytest.raises(TrackingError, match=r"mlflow experiments restore --experiment-id \d+"):
        tracker.raise_if_failed()
    tracker.close()


def test_only_what_is_damaged_is_offered_for_removal(server, experiment, tmp_path, monkeypatch):
    tracker = Tracker(TrackingSettings(server.uri, experiment))
    whole, damaged = (finish(begin(tracker, tmp_path / name, name)).run_id for name in ("whole", "damaged"))
    tracker.close()
    (path,) = server._folder.glob(f"artifacts/**/{damaged}/artifacts/notes.txt")
    path.unlink()
    client = MlflowClient(server.uri)
    where = client.get_run(whole).info.experiment_id
    finished = FinishedRuns(client, where, FileHashes(tmp_path / "cache"))
    assert (finished.explain_damage(whole), "404" in finished.explain_damage(damaged)) == ("", True)

    reader = Tracker(TrackingSettings(server.uri, experiment))
    reader.raise_if_failed()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    download = client.download_artifacts

    def lose_the_server(*args):
        server.close()
        return download(*args)

    monkeypatch.setattr(client, "download_artifacts", lose_the_server)
    with pytest.raises(MlflowException) as caught:
        finished.explain_damage(whole)
    assert is_out_of_reach(caught.value)
    with pytest.raises(RecordError, match="out of reach, so nothing was looked at"):
        reader.store.find_leftovers()
    with pytest.raises(RecordError, match="out of reach, so not all was removed"):
        reader.store.remove_leftovers([], [whole])
    reader.close()


def test_a_run_waits_for_the_run_above_it_to_be_sent(server, experiment, tmp_path, monkeypatch):
    server.close()
    tracker = Tracker(TrackingSettings(server.uri, experiment))
    sweep = begin(tracker, tmp_path / "sweep", "sweep")
    finish(begin(tracker, tmp_path / "job", "job", sweep))
    finish(sweep)
    tracker.close()
    server.start()
    unsent = UnsentRuns(server.uri)
    above, below = (run["run_id"] for run in unsent.list_runs())
    with monkeypatch.context() as patch:
        patch.setattr(unsent, "_send_artifacts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            unsent.send(above)
    with pytest.raises(OSError, match=f"it is below run {above} \\(sweep\\), which must be sent first"):
        unsent.send(below)
    sent = [unsent.send(run["run_id"]) for run in unsent.list_runs()]
    _, runs = find_runs(server.uri, experiment)
    assert [run.info.run_id for run in runs] == sent
    assert runs[1].data.tags["mlflow.parentRunId"] == sent[0]


def test_runs_are_kept_and_sent_later(server, experiment, tmp_path, caplog):
    server.close()
    away = Tracker(TrackingSettings(server.uri, experiment))
    sweep = begin(away, tmp_path / "sweep", "sweep")
    first = finish(begin(away, tmp_path / "first", "first", sweep))
    assert first.uri == UNSENT
    assert f"python -m pipeline sync tracking.uri={server.uri}" in caplog.text
    (found,) = away.store.find_finished([("key of first", {})])
    again = away.link("again", found.run_id, tmp_path / "again", time.time() + next(LATER), sweep).wait()
    with pytest.raises(RecordError, match="out of reach, so nothing was sent"):
        away.store.list_unsent()

    server.start()
    back = Tracker(TrackingSettings(server.uri))
    assert back.store.list_unsent() == []  # the run above them is still open
    back.close()
    finish(sweep)
    away.close()
    back = Tracker(TrackingSettings(server.uri))
    waiting = back.store.list_unsent()
    assert [run["name"] for run in waiting] == ["sweep", "first", "again"]
    sent = {run["run_id"]: back.store.send_unsent(run["run_id"]) for run in waiting}
    assert back.store.list_unsent() == []
    back.close()

    client, runs = find_runs(server.uri, experiment)
    for run, name in zip(runs, ("sweep", "first"), strict=False):
        check_whole(client, run, name)
    above, one, two = runs
    assert one.data.tags["mlflow.parentRunId"] == two.data.tags["mlflow.parentRunId"] == above.info.run_id
    assert two.info.run_id == sent[again.run_id]
    assert two.data.tags["linked_run_id"] == one.info.run_id == sent[first.run_id]


def test_a_server_that_fails_in_mid_run_gets_each_run_once(server, experiment, tmp_path):
    tracker = Tracker(TrackingSettings(server.uri, experiment))
    sweep = begin(tracker, tmp_path / "sweep", "sweep")
    before = finish(begin(tracker, tmp_path / "before", "before", sweep))
    cut = begin(tracker, tmp_path / "cut", "cut", sweep)
    cut.log([("loss", 1.0, 1001.0, 1)], {"only": "the server has it"})
    (source,) = tracker.store.find_finished([("key of before", {})])  # so all the above is on the server
    server.close()
    lost = tracker.link("lost", source.run_id, tmp_path / "lost", time.time(), sweep)
    assert finish(cut).uri == UNSENT
    with pytest.raises(TrackingError, match=r"did not take the record: .*Connection refused"):
        lost.wait()
    finish(begin(tracker, tmp_path / "after", "after", sweep))
    with pytest.raises(TrackingError, match="did not take the records of lost"):  # which the sweep lacks now
        finish(sweep)
    tracker.close()

    server.start()
    back = Tracker(TrackingSettings(server.uri))
    for run in back.store.list_unsent():
        back.store.send_unsent(run["run_id"])
    back.close()
    client, runs = find_runs(server.uri, experiment)
    assert [run.info.run_name for run in runs] == ["sweep", "before", "cut", "after"]
    for run in runs:
        check_whole(client, run, run.info.run_name)
    assert runs[1].info.run_id == before.run_id
    assert {run.data.tags.get("mlflow.parentRunId") for run in runs} == {None, runs[0].info.run_id}
    assert find_runs(f"sqlite:///{tmp_path}/outputs/unsent/mlflow.db", experiment)[1] == []


def test_a_sending_that_is_cut_off_is_completed(server, experiment, tmp_path, monkeypatch):
    server.close()
    tracker = Tracker(TrackingSettings(server.uri, experiment))
    finish(begin(tracker, tmp_path / "run", "run"))
    tracker.close()
    server.start()
    unsent = UnsentRuns(server.uri)
    (run,) = unsent.list_runs()
    with monkeypatch.context() as patch:
        patch.setattr(unsent, "_check", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            unsent.send(run["run_id"])
    unsent.send(run["run_id"])
    client, (found,) = find_runs(server.uri, experiment)
    check_whole(client, found, "run")


def test_a_server_that_is_back_gets_the_next_run(server, experiment, tmp_path, monkeypatch):
    server.close()
    said = []
    writer = Writer(said.append)
    start = {"do": "start", "parent": None, "folder": str(tmp_path), "identity": "", "time": time.time()}
    start |= {key: {} for key in ("params", "tags", "files", "inputs", "facts", "axes", "kept")}
    finish = {"do": "finish", "status": "FINISHED", "time": time.time(), "learnt": {}, "outputs": {}}
    writer.handle({"do": "open", "uri": server.uri, "experiment": experiment, "system_metrics": False})
    assert [list(one) for one in said] == [["out_of_reach"]]
    server.start()
    writer.handle({**start, "run": 1, "record": "a", "name": "soon after"})
    assert writer.handle({**finish, "run": 1})["uri"] == UNSENT
    monkeypatch.setattr("pipeline.record.writer.process.TRY_AGAIN", 0.0)
    writer.handle({**start, "run": 2, "record": "b", "name": "later"})
    assert writer.handle({**finish, "run": 2})["uri"] == server.uri
    assert [run.info.run_name for run in find_runs(server.uri, experiment)[1]] == ["later"]


def test_a_run_made_without_the_server_is_sent_and_rerun_from_there(server, environment, tmp_path):
    def call(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    tracking = f"tracking.uri={server.uri}"
    server.close()
    told = call(str(ROOT / "run.py"), "experiment=tiny", tracking)
    assert "is out of reach, so runs are kept in sqlite:///outputs/unsent/mlflow.db" in told
    assert "mlflow ui --backend-store-uri sqlite:///outputs/unsent/mlflow.db" in told
    server.start()
    told = call("-m", "pipeline", "sync", tracking)
    (sent,) = re.findall(r"FINISHED, now run (\w{32})", told)
    run = MlflowClient(server.uri).get_run(sent)
    assert {one.dataset.name for one in run.inputs.dataset_inputs} == {"positive", "negative", "latent"}
    assert len(run.inputs.model_inputs) == 2
    assert f"rerun {sent} --verify" in run.data.tags["mlflow.note.content"]
    assert "sent 1 of 1 runs" in told
    assert "sent 0 of 0 runs" in call("-m", "pipeline", "sync", tracking)
    assert "equal" in call("-m", "pipeline", "rerun", sent, "--verify", tracking)
