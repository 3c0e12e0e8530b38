"""Finding a finished run by what its results follow from, and taking it over."""

from __future__ import annotations

import time

import pytest
from mlflow import MlflowClient

from pipeline.base.file_state import FileState
from pipeline.record.tracker import NewRun, Tracker, TrackingSettings


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def tracker(uri, request):
    tracker = Tracker(TrackingSettings(uri, request.node.name))
    yield tracker
    tracker.close()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def record(tracker, folder, model, status="FINISHED"):
    """A run with an artifact in a sub-folder; its id."""
    (folder / "images").mkdir(parents=True)
    path = folder / "images" / "one.txt"
    path.write_text("result")
    run = tracker.start(
        NewRun("first", {"seed": "1"}, {"device": "cpu"}, folder, "the key", {"unet.unet_name": FileState.of(model)}),
        time.time(),
    )
    run.log([("latent/sampler/mean", 0.5, time.time(), 0), ("seconds/sampler", 3.0, time.time(), 0)])
    run.add_file(path)
    run.finish(status, time.time())
    return run.wait().run_id


def find(tracker, model, key="the key"):
    (found,) = tracker.store.find_finished([(key, {"unet.unet_name": FileState.of(model)})])
    return found


def test_a_finished_run_is_found_by_its_identity(tracker, model, tmp_path):
    run_id = record(tracker, tmp_path / "run", model)
    found = find(tracker, model)
    assert found.run_id == run_id
    assert found.metrics == {"latent/sampler/mean": 0.5, "seconds/sampler": 3.0}
    assert find(tracker, model, "another key") is None


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_run_that_did_not_finish_is_not_found(tracker, model, tmp_path, status):
    record(tracker, tmp_path / "run", model, status)
    assert find(tracker, model) is None


def test_a_model_file_of_other_content_gives_other_results_under_any_name_and_time(tracker, model, tmp_path):
    run_id = record(tracker, tmp_path / "run", model)
    moved = model.rename(tmp_path / "moved.safetensors")
    moved.touch()
    assert find(tracker, moved).run_id == run_id
    moved.write_bytes(b"weightz")
    assert find(tracker, moved) is None


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("resulT")])
def test_a_run_whose_artifacts_are_not_intact_is_not_found(tracker, model, tmp_path, uri, damage):
    run_id = record(tracker, tmp_path / "run", model)
    path = MlflowClient(uri).get_run(run_id).info.artifact_uri.removeprefix("file://")
    damage(type(model)(path, "images", "one.txt"))
    assert find(tracker, model) is None


def test_a_linked_run_has_the_files_and_results_and_none_of_the_costs(tracker, model, tmp_path, uri):
    run_id = record(tracker, tmp_path / "run", model)
    linked = tracker.link("second", run_id, tmp_path / "link", time.time(), None).wait()
    assert (tmp_path / "link/images/one.txt").read_text() == "result"
    data = MlflowClient(uri).get_run(linked.run_id).data
    assert (data.params, data.metrics) == ({"seed": "1"}, {"latent/sampler/mean": 0.5})
    assert (data.tags["linked_run_id"], data.tags["device"]) == (run_id, "cpu")
    MlflowClient(uri).delete_run(run_id)
    assert find(tracker, model).run_id == linked.run_id


def test_a_linked_run_keeps_what_is_its_own(tracker, model, tmp_path, uri):
    run_id = record(tracker, tmp_path / "run", model)
    (tmp_path / "link").mkdir()
    for name in ("config.yaml", "images/one.txt"):
        (tmp_path / "link" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "link" / name).write_text("its own")
    own = ["config.yaml", "images/one.txt"]
    linked = tracker.link(
        "second", run_id, tmp_path / "link", time.time(), None, {"seed": "2"}, "### Settings\n\nits own", own
    ).wait()
    run = MlflowClient(uri).get_run(linked.run_id)
    assert run.data.params == {"seed": "2"}
    assert "its own" in run.data.tags["mlflow.note.content"]
    read = tracker.store.read(linked.run_id, tmp_path / "read")
    assert set(own) <= read.record.artifacts.keys()
    assert (tmp_path / "read/images/one.txt").read_text() == "its own"


def test_a_link_of_a_link_names_the_run_that_computed(tracker, model, tmp_path, uri):
    run_id = record(tracker, tmp_path / "run", model)
    for name in ("second", "third"):
        last = tracker.link(name, find(tracker, model).run_id, tmp_path / name, time.time(), None).wait()
    assert MlflowClient(uri).get_run(last.run_id).data.tags["linked_run_id"] == run_id


FACTS = {"comfyui.code": "a", "version.torch": "2.9", "host.name": "here", "env.MY_FACTOR": "1"}


def record_cell(tracker, folder, model, name="first", cell="the cell", identity="the key"):
    """A finished run that says what its results follow from, as runs do; its id."""
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("result")
    tags = {"cell": cell} if cell else {}
    files = {"unet.unet_name": FileState.of(model)}
    run = tracker.start(NewRun(name, {}, tags, folder, identity, files, facts=FACTS), time.time())
    run.add_file(folder / "one.txt")
    run.finish("FINISHED", time.time())
    return run.wait().run_id


def explain(tracker, model, name="first", **changed):
    facts = {name: text for name, text in {**FACTS, **changed}.items() if text and name != "host.name"}
    return tracker.store.explain_missing(name, "the cell", facts, {"unet.unet_name": FileState.of(model)})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"comfyui.code": "b"}, ["comfyui.code: a -> b"]),
        ({"env.MY_FACTOR": None}, ["env.MY_FACTOR: 1 -> none"]),
        ({"env.OTHER": "2"}, ["env.OTHER: none -> 2"]),
        ({"version.torch": "2.10", "comfyui.code": "b"}, ["comfyui.code: a -> b", "version.torch: 2.9 -> 2.10"]),
    ],
)
def test_why_a_run_is_not_taken_over_is_told_the_likeliest_cause_first(tracker, model, tmp_path, changed, told):
    run_id = record_cell(tracker, tmp_path / "run", model)
    assert explain(tracker, model, **changed) == ([f"run {run_id}: {one}" for one in told], 0)


def test_a_changed_file_is_told_by_its_input(tracker, model, tmp_path):
    record_cell(tracker, tmp_path / "run", model)
    model.write_bytes(b"weightz")
    ((reason,), _) = explain(tracker, model)
    assert "file.unet.unet_name: " in reason


def test_damaged_artifacts_are_told(tracker, model, tmp_path, uri):
    run_id = record_cell(tracker, tmp_path / "run", model)
    folder = type(model)(MlflowClient(uri).get_run(run_id).info.artifact_uri.removeprefix("file://"))
    (folder / "one.txt").write_text("other")
    assert find(tracker, model) is None
    assert explain(tracker, model) == ([f"run {run_id}: its files are damaged or gone"], 0)
    (folder / "record.json").write_text("{")
    ((reason,), _) = explain(tracker, model)
    assert reason.startswith(f"run {run_id}: its record cannot be read")


@pytest.mark.parametrize("name", ["first", "text=it's", 'it\'s "50%" \\ a_b'])
def test_records_of_an_older_latentgrid_are_counted_by_their_name(tracker, model, tmp_path, name):
    record_cell(tracker, tmp_path / "run", model, name, cell="")
    record_cell(tracker, tmp_path / "other", model, name.replace("t", "T", 1), cell="")
    assert explain(tracker, model, name) == ([], 1)


def test_a_cell_that_was_never_recorded_needs_no_explanation(tracker, model, tmp_path):
    record_cell(tracker, tmp_path / "run", model, cell="another cell")
    assert explain(tracker, model) == ([], 0)
