"""Hashes of model files: right, remembered, and never those of a file that was replaced meanwhile."""

from __future__ import annotations

import hashlib
import os

import pytest

from pipeline.file_state import FileState
from pipeline.record import file_hashes
from pipeline.record.file_hashes import FileHashes


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def test_a_hash_is_that_of_the_bytes(model, tmp_path):
    assert FileHashes(tmp_path).get(FileState.of(model)) == hashlib.sha256(b"weights").hexdigest()


def test_another_process_need_not_read_the_file_again(model, tmp_path):
    state = FileState.of(model)
    found = FileHashes(tmp_path).get(state)
    model.unlink()
    assert FileHashes(tmp_path).get(state) == found


def test_a_file_that_changed_is_hashed_anew(model, tmp_path):
    FileHashes(tmp_path).get(FileState.of(model))
    model.write_bytes(b"WEIGHTS")
    os.utime(model, ns=(1, 1))
    assert FileHashes(tmp_path).get(FileState.of(model)) == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_a_file_that_was_replaced_before_it_could_be_read_has_no_hash(model, tmp_path):
    state = FileState.of(model)
    model.write_bytes(b"other weights")
    assert FileHashes(tmp_path).get(state) is None
    model.unlink()
    assert FileHashes(tmp_path).get(state) is None


def test_only_so_many_are_at_hand(model, tmp_path, monkeypatch):
    monkeypatch.setattr(file_hashes, "AT_HAND", 2)
    hashes = FileHashes(tmp_path)
    for number in range(5):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(bytes([number]))
        assert hashes.get(FileState.of(path)) == hashlib.sha256(bytes([number])).hexdigest()
    assert len(hashes._pending) == 2
    assert hashes.get(FileState.of(tmp_path / "0.pt")) == hashlib.sha256(b"\0").hexdigest()
