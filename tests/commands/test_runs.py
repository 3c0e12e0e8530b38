"""`python -m pipeline runs`: the table of recorded runs."""

from __future__ import annotations

import pytest
from conftest import PROBES

from pipeline import run
from pipeline.cli import main
from pipeline.commands.runs import find_differing, format_runs


def test_settings_that_differ_are_told_once():
    params = [
        {"seed": "1", "sampler.seed": "1", "sampler.steps": "4", "sampler.cfg": "1.0"},
        {"seed": "2", "sampler.seed": "2", "sampler.steps": "4", "sampler.cfg": "2.0"},
        {},
    ]
    assert find_differing(params) == ["seed", "sampler.cfg"]
    assert find_differing(params[:1]) == []


def test_runs_are_a_table(tmp_path):
    (tmp_path / "sampler.png").write_bytes(b"")
    shared = {"status": "FINISHED", "artifact_uri": tmp_path.as_uri()}
    first = {"run_id": "a", "name": "one", "params": {"seed": "1"}, "metrics": {"seconds/total": 1.5}, **shared}
    second = {"run_id": "b", "name": None, "params": {"seed": "2"}, "metrics": {"memory/x": 1.0}, **shared}
    head, *lines = format_runs([first, {**second, "status": "KILLED", "artifact_uri": "s3://bucket/b"}]).splitlines()
    assert head.split()[:3] == ["run", "status", "name"]
    assert lines[0].split() == ["a", "FINISHED", "one", "seed=1", "seconds/total=1.5", str(tmp_path / "sampler.png")]
    assert lines[1].split() == ["b", "KILLED", "seed=2"]


def test_the_command_shows_the_latest_runs_first_and_makes_nothing(tmp_path, monkeypatch, capsys, session):
    monkeypatch.chdir(tmp_path)
    uri = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    add = [*PROBES, uri, "+add._node_=ProbeAdd", "+add.a=1", "run.outputs=[add]"]
    for b in (2, 3):
        run(overrides=[*add, f"+add.b={b}", f"run.name=b{b}"], folder=tmp_path / str(b))
    main(["runs", uri])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4] for line in lines[1:]] == [["FINISHED", "b3", "add.b=3"], ["FINISHED", "b2", "add.b=2"]]
    main(["runs", "--last", "1", uri])
    assert len(capsys.readouterr().out.splitlines()) == 2
    main(["runs", uri, "tracking.experiment_name=typo"])
    assert "no runs in the experiment 'typo'" in capsys.readouterr().out


def test_a_wrong_count_is_said(capsys):
    with pytest.raises(SystemExit):
        main(["runs", "--last", "0"])
    assert "--last: must be at least 1, got 0" in capsys.readouterr().err
