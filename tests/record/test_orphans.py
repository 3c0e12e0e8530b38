"""Who is certainly gone, and who may be alive: a live run must never be marked KILLED."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from pipeline.record.writer import orphans
from pipeline.record.writer.orphans import WRITER, end_orphans, is_gone, read_writer

WRITING = "import sys; from pipeline.record.writer.orphans import name_writer; print(name_writer(), flush=True);"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def alive(environment):
    """The tag of a writer that lives."""
    command = [sys.executable, "-c", f"{WRITING} sys.stdin.read()"]
    with subprocess.Popen(command, env=environment, text=True, stdin=-1, stdout=-1) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


@pytest.fixture
def gone(environment):
    """The tag of one that ended without a word."""
    command = [sys.executable, "-c", f"{WRITING} import os; os._exit(1)"]
    return subprocess.run(command, env=environment, text=True, capture_output=True).stdout.strip()


def change(tag: str, **values: str) -> str:
    return str(dataclasses.replace(read_writer(tag), **values))


def test_a_process_is_known_by_its_number_and_start(alive, gone):
    assert not is_gone(alive)
    assert is_gone(gone)
    assert is_gone(change(alive, start="1"))  # another process has its number by now
    assert is_gone(change(gone, lock="unknown.lock"))


def test_in_another_container_only_the_lock_tells(alive, gone):
    elsewhere = {"namespaces": "pid:[1] time:[1]", "host": "web"}
    assert not is_gone(change(alive, **elsewhere, pid="1"))
    assert is_gone(change(gone, **elsewhere))
    assert not is_gone(change(gone, **elsewhere, lock="of-another-cache.lock"))


def test_of_another_boot_only_a_lock_of_this_machine_tells(alive, gone):
    assert is_gone(change(gone, boot="earlier"))
    assert not is_gone(change(alive, boot="earlier"))
    assert not is_gone(change(gone, boot="of another machine", lock="of-another-cache.lock"))
    assert not is_gone(change(gone, boot="of another machine", host="another"))  # a folder shared without locks


def test_where_the_system_tells_nothing_a_process_may_be_alive(alive, gone, monkeypatch):
    assert not is_gone(change(gone, boot="", namespaces="", host="another"))
    monkeypatch.setattr(orphans, "_read", lambda path: "")  # as of other users with hidepid
    assert not is_gone(alive)


@pytest.mark.parametrize("tag", ["", "vm:7:1700000000.00", "1;2", "3;vm;b;n;7;1;x.lock"])
def test_of_a_tag_of_another_form_nothing_is_known(tag):
    assert not is_gone(tag)


def test_only_runs_of_writers_that_are_gone_are_ended(tmp_path, alive, gone):
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    old = "vm:4194304:1700000000.00"
    tags = {"alive": alive, "gone": gone, "before": old, "container": change(alive, pid="1", namespaces="another")}
    runs = {name: client.create_run("0", tags={WRITER: tag}).info.run_id for name, tag in tags.items()}
    end_orphans(client, "0")
    assert {name: client.get_run(one).info.status for name, one in runs.items()} == {
        "alive": "RUNNING",
        "gone": "KILLED",
        "before": "RUNNING",
        "container": "RUNNING",
    }
