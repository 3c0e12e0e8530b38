"""`python -m pipeline clean`: finds what a store should not have, and removes it only when told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import PROBES
from mlflow import MlflowClient
from mlflow.entities import ViewType

from pipeline import run
from pipeline.cli import main
from pipeline.record.writer.finished_runs import FinishedRuns
from pipeline.record.writer.leftovers import Leftovers


@pytest.fixture
def store(tmp_path, monkeypatch, session):
    """A store with two whole runs, one that is damaged, and artifacts of none: its client, and what is there."""
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    add = [*PROBES, f"tracking.uri={uri}", "+add._node_=ProbeAdd", "+add.a=1", "run.outputs=[add]"]
    runs = [run(overrides=[*add, f"+add.b={b}"], folder=tmp_path / str(b)).mlflow.run_id for b in (2, 3, 4)]
    client = MlflowClient(uri)
    artifacts = [Path(client.get_run(one).info.artifact_uri.removeprefix("file://")) for one in runs]
    (artifacts[1] / "prompt.json").write_text("{}")
    orphan = artifacts[0].parent.parent / ("0" * 32)
    shutil.copytree(artifacts[0].parent, orphan)
    client.delete_run(runs[2])  # by somebody else; it can be restored, so its artifacts are no orphans
    return client, runs, [path.parent for path in artifacts], orphan


def ask(monkeypatch, capsys, answer: str, *options: str) -> str:
    monkeypatch.setattr("builtins.input", lambda question: answer)
    main(["clean", *options, f"tracking.uri=sqlite:///{Path.cwd()}/mlflow.db"])
    return capsys.readouterr().out


def test_nothing_is_removed_unless_somebody_says_yes(store, monkeypatch, capsys):
    client, runs, _, orphan = store
    said = ask(monkeypatch, capsys, "")
    assert f"artifacts without a run  {orphan}" in said
    assert f"damaged run              {runs[1]}" in said
    assert "prompt.json of run" in said
    assert said.endswith("nothing was removed\n")
    assert orphan.is_dir()
    assert client.get_run(runs[1]).info.lifecycle_stage == "active"


def test_what_is_whole_stays(store, monkeypatch, capsys):
    client, runs, artifacts, orphan = store
    assert ask(monkeypatch, capsys, "y").endswith("removed 1 folders and 1 runs\n")
    assert not orphan.exists()
    assert all(folder.is_dir() for folder in artifacts)
    assert [client.get_run(one).info.lifecycle_stage for one in runs] == ["active", "deleted", "deleted"]
    assert ask(monkeypatch, capsys, "y") == "nothing to remove\n"


def test_what_went_by_itself_is_not_counted(store, monkeypatch, capsys):
    monkeypatch.setattr("builtins.input", lambda question: shutil.rmtree(store[3]) or "y")
    main(["clean", f"tracking.uri=sqlite:///{Path.cwd()}/mlflow.db"])
    assert capsys.readouterr().out.endswith("removed 0 folders and 1 runs\n")


def test_a_run_that_begins_while_it_looks_is_no_leftover(store, tmp_path):
    """A sweep beside it begins a run in the moment in which the store is read."""
    client = store[0]
    experiment = client.get_experiment(client.get_run(store[1][0]).info.experiment_id)
    made = []

    class Beside:
        def search_runs(self, *args, **options):
            found = client.search_runs(*args, **options)
            other = (
                client.create_experiment(f"new {len(made)}", experiment.artifact_location)
                if made
                else experiment.experiment_id
            )
            new = client.create_run(other)
            client.log_text(new.info.run_id, "hello", "notes.txt")
            made.append(new.info.run_id)
            return found

        def __getattr__(self, name):
            return getattr(client, name)

    leftovers = Leftovers(Beside(), FinishedRuns(client, experiment.experiment_id, None), ViewType.ALL)
    for _ in range(2):
        assert leftovers.find()["orphans"] == [str(store[3])]
    assert made


def test_artifacts_that_may_belong_to_another_store_are_left_alone(store, monkeypatch, capsys, tmp_path):
    (tmp_path / "other.db").touch()
    said = ask(monkeypatch, capsys, "y", "--yes")
    assert "several stores lie beside it" in said
    assert store[3].is_dir()
