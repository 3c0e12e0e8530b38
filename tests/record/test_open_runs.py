"""What a writer does to the runs of a store, message by message, on the real MLflow with SQLite."""

from __future__ import annotations

import json

import pytest
from mlflow import MlflowClient
from PIL import Image

from pipeline.base.file_hashes import FileHashes
from pipeline.base.file_state import FileState, hash_file
from pipeline.record.writer.open_runs import OpenRuns
from pipeline.record.writer.process import Writer
from pipeline.record.writer.store import open_store


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def make_runs(uri, tmp_path, request):
    """Makes the runs of one writer after the other, in one experiment."""
    return lambda: OpenRuns(open_store(uri, request.node.name), FileHashes(tmp_path / "cache"), False)


@pytest.fixture
def client(uri) -> MlflowClient:
    return MlflowClient(uri)


def begin(runs, folder, run=1, record="a", parent=None, **changes):
    folder.mkdir(exist_ok=True)
    plain = {"params": {}, "tags": {}, "files": {}, "inputs": {}, "facts": {}, "axes": [], "kept": []}
    given = {"name": "one", "time": 1.5, "folder": str(folder), "identity": "", **plain, **changes}
    runs.start(run, record, parent=parent, **given)


def end(runs, run=1, status="FINISHED"):
    return runs.finish(run, status, 2.5, {"learnt": "x"}, {"sampler": "digest"})["run_id"]


def test_a_record_says_what_was_told(make_runs, client, tmp_path):
    runs, folder, model = make_runs(), tmp_path / "run", tmp_path / "model.safetensors"
    model.write_bytes(b"model")
    files = {"unet.unet_name": [*vars(FileState.of(model)).values()]}
    begin(runs, folder, identity="key", params={"p": "x" * 7000}, tags={"t": "1"}, files=files, facts={"f": "2"})
    (folder / "sub").mkdir()
    (folder / "sub/notes.txt").write_text("hello")
    runs.log(1, [["m", 0.5, 1.75, 3]], {"later": "tag"})
    runs.file(1, str(folder / "sub/notes.txt"), None)
    run_id = end(runs)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1500, 2500)
    assert run.data.params == {"p": "x" * 6000}
    assert run.data.tags.items() >= {"t": "1", "later": "tag", "identity": "key", "record_id": "a"}.items()
    assert [(one.value, one.timestamp, one.step) for one in client.get_metric_history(run_id, "m")] == [(0.5, 1750, 3)]
    record = json.loads((folder / "record.json").read_text())
    assert record["artifacts"] == {"sub/notes.txt": hash_file(folder / "sub/notes.txt")}
    assert record["files"]["unet.unet_name"]["sha256"] == hash_file(model)
    assert record["facts"].items() >= {"f": "2", "learnt": "x"}.items()
    assert [one.path for one in client.list_artifacts(run_id, "sub")] == ["sub/notes.txt"]


@pytest.mark.parametrize(("identity", "status"), [("", "FINISHED"), ("key", "FAILED"), ("key", "KILLED")])
def test_only_a_run_that_finished_is_found_by_its_identity(make_runs, client, tmp_path, identity, status):
    runs = make_runs()
    begin(runs, tmp_path / "run", identity=identity)
    run = client.get_run(end(runs, status=status))
    assert run.info.status == status
    assert "identity" not in run.data.tags
    assert not (tmp_path / "run/record.json").exists()


def test_a_run_is_taken_over_with_its_files_and_results_but_not_its_costs(make_runs, client, tmp_path):
    runs = make_runs()
    begin(runs, tmp_path / "source", identity="key", params={"p": "1"}, tags={"t": "1"})
    Image.new("RGB", (8, 8)).save(tmp_path / "source/picture.png")
    runs.file(1, str(tmp_path / "source/picture.png"), "sampler")
    runs.log(1, [["latent/mean", 0.5, 1.0, 0], ["seconds/total", 9.0, 1.0, 0]], {})
    source = end(runs)
    begin(runs, tmp_path / "above", run=2, record="b")
    taken = runs.link(3, "c", "again", source, 3.0, 2, str(tmp_path / "taken"))["run_id"]
    again = client.get_run(runs.link(4, "d", "again", taken, 4.0, None, str(tmp_path / "more"))["run_id"])
    run = client.get_run(taken)
    assert (run.info.status, run.data.params, run.data.metrics) == ("FINISHED", {"p": "1"}, {"latent/mean": 0.5})
    assert run.data.tags.items() >= {"t": "1", "identity": "key", "linked_run_id": source}.items()
    assert again.data.tags["linked_run_id"] == source  # who computed it, and not who took it over
    assert run.data.tags["mlflow.parentRunId"] == end(runs, run=2)
    assert (tmp_path / "taken/picture.png").read_bytes() == (tmp_path / "source/picture.png").read_bytes()
    assert client.list_artifacts(taken, "images")


def test_a_run_whose_files_are_damaged_is_not_taken_over(make_runs, client, tmp_path):
    runs = make_runs()
    begin(runs, tmp_path / "source", identity="key")
    (tmp_path / "source/notes.txt").write_text("hello")
    runs.file(1, str(tmp_path / "source/notes.txt"), None)
    source = end(runs)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("hallo")
    client.log_artifact(source, str(tmp_path / "other/notes.txt"))
    with pytest.raises(OSError, match=r"notes\.txt of run \w+ is not what was recorded"):
        runs.link(2, "b", "again", source, 3.0, None, str(tmp_path / "taken"))


def test_the_next_writer_completes_what_another_began(make_runs, client, tmp_path):
    first, second = make_runs(), make_runs()
    folder = tmp_path / "run"
    for runs, again in ((first, False), (second, True)):
        begin(runs, folder, identity="key", params={"p": "1"}, again=again)
        Image.new("RGB", (8, 8)).save(folder / "picture.png")
        runs.file(1, str(folder / "picture.png"), "sampler")
        runs.log(1, [["m", 0.5, 1.0, 0]], {})
        if runs is first:
            runs.end_all("KILLED", "the machine went down")
    run_id = end(second)
    (run,) = client.search_runs([client.get_run(run_id).info.experiment_id])
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert "error" not in run.data.tags
    assert len(client.get_metric_history(run_id, "m")) == 1
    assert len([one for one in client.list_artifacts(run_id, "images") if one.path.endswith(".png")]) == 1


def test_a_run_told_again_that_no_store_has_is_begun(make_runs, client, tmp_path):
    runs = make_runs()
    begin(runs, tmp_path / "run", again=True)
    assert client.get_run(end(runs)).data.tags["record_id"] == "a"


def test_a_run_below_one_that_is_lost_has_none_above(make_runs, client, tmp_path):
    runs = make_runs()
    begin(runs, tmp_path / "above")
    runs.give_up(1, None, "the reason")
    begin(runs, tmp_path / "below", run=2, record="b", parent=1)
    below = client.get_run(end(runs, run=2))
    assert "mlflow.parentRunId" not in below.data.tags
    found = client.search_runs([below.info.experiment_id], "tags.record_id = 'a'")
    assert [(run.info.status, run.data.tags["error"]) for run in found] == [("FAILED", "the reason")]


def test_a_run_whose_beginning_is_refused_does_not_stay_running(uri, client, tmp_path, request):
    writer = Writer(lambda answer: None)
    writer.handle({"do": "open", "uri": uri, "experiment": request.node.name, "system_metrics": False})
    start = {"do": "start", "run": 1, "record": "r", "name": "one", "time": 1.0, "parent": None, "identity": ""}
    start |= {"folder": str(tmp_path), **{key: {} for key in ("tags", "files", "inputs", "facts", "axes", "kept")}}
    writer.handle({**start, "params": {"same": "1"}})
    answer = writer.handle({**start, "params": {"same": "2"}, "again": True})  # a param cannot be changed
    assert answer.keys() == {"lost", "reason"}
    assert writer.handle({"do": "log", "run": 1, "metrics": [], "tags": {}}) is None
    experiment = client.get_experiment_by_name(request.node.name).experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["FAILED"]
    writer.close()
