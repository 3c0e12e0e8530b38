"""Hashes of model files: right, remembered, and never those of a file that was replaced meanwhile."""

from __future__ import annotations

import hashlib
import os

import pytest

from pipeline.base import file_hashes
from pipeline.base.file_hashes import FileHashes
from pipeline.base.file_state import FileState


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def settled(monkeypatch):
    """A file counts as settled at once, so that its hash is remembered."""
    monkeypatch.setattr(file_hashes, "SETTLED_NS", -1)


def test_a_hash_is_that_of_the_bytes(model, tmp_path):
    assert FileHashes(tmp_path).get(FileState.of(model)) == hashlib.sha256(b"weights").hexdigest()


def test_another_process_need_not_read_the_file_again(model, tmp_path, settled, monkeypatch):
    state = FileState.of(model)
    found = FileHashes(tmp_path).get(state)
    monkeypatch.delattr(file_hashes, "hash_file")
    assert FileHashes(tmp_path).get(state) == found


def test_a_hash_that_was_found_before_says_nothing_of_a_file_that_was_replaced_since(model, tmp_path, settled):
    state, hashes = FileState.of(model), FileHashes(tmp_path)
    assert hashes.get(state)
    model.write_bytes(b"WEIGHTS")
    assert hashes.get(state) is None
    assert FileHashes(tmp_path).get(state) is None


def test_a_file_that_changed_is_hashed_anew(model, tmp_path, settled):
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


def test_a_file_that_was_just_changed_is_not_remembered(model, tmp_path, monkeypatch):
    monkeypatch.setattr(file_hashes, "SETTLED_NS", 3_600_000_000_000)
    state = FileState.of(model)
    assert FileHashes(tmp_path).get(state)
    model.unlink()
    assert FileHashes(tmp_path).get(state) is None


def test_a_modification_time_in_the_future_is_no_recent_change(model, tmp_path, monkeypatch):
    os.utime(model, ns=(1 << 62, 1 << 62))
    state = FileState.of(model)
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: state.ctime_ns + 2 * file_hashes.SETTLED_NS)
    found = FileHashes(tmp_path).get(state)
    monkeypatch.delattr(file_hashes, "hash_file")
    assert FileHashes(tmp_path).get(state) == found


def test_a_file_changed_in_place_with_its_size_and_time_restored_is_hashed_anew(model, tmp_path, settled):
    before = FileState.of(model)
    FileHashes(tmp_path).get(before)
    with model.open("r+b") as file:
        file.write(b"WEIGHTS")
    os.utime(model, ns=(before.mtime_ns, before.mtime_ns))
    after = FileState.of(model)
    assert (after.size, after.mtime_ns, after.inode) == (before.size, before.mtime_ns, before.inode)
    assert FileHashes(tmp_path).get(after) == hashlib.sha256(b"WEIGHTS").hexdigest()


def damage_memory(folder):
    folder.mkdir()
    (folder / file_hashes.MEMORY).write_bytes(b"no database" * 100)


def make_memory_a_folder(folder):
    (folder / file_hashes.MEMORY).mkdir(parents=True)


def put_memory_below_a_file(folder):
    folder.write_bytes(b"")


@pytest.mark.parametrize("harm", [damage_memory, make_memory_a_folder, put_memory_below_a_file])
def test_a_memory_that_cannot_be_used_gives_hashes_and_one_warning(model, tmp_path, settled, caplog, harm):
    harm(tmp_path / "memory")
    hashes = FileHashes(tmp_path / "memory")
    other = tmp_path / "other"
    other.write_bytes(b"other")
    assert hashes.get(FileState.of(model)) == hashlib.sha256(b"weights").hexdigest()
    assert hashes.get(FileState.of(other)) == hashlib.sha256(b"other").hexdigest()
    assert len(caplog.messages) == 1
    assert "cannot be used" in caplog.text


def test_a_damaged_memory_is_thrown_away(model, tmp_path, settled, monkeypatch):
    damage_memory(tmp_path / "memory")
    state = FileState.of(model)
    hashes = FileHashes(tmp_path / "memory")
    hashes.get(state)
    other = model.with_name("other")
    other.write_bytes(b"other")
    state = FileState.of(other)
    found = hashes.get(state)
    monkeypatch.delattr(file_hashes, "hash_file")
    assert FileHashes(tmp_path / "memory").get(state) == found


def test_names_and_numbers_that_sqlite_does_not_know_give_a_hash(tmp_path, settled):
    path = tmp_path / os.fsdecode(b"\xff.pt")
    path.write_bytes(b"weights")
    assert FileHashes(tmp_path).get(FileState.of(path)) == hashlib.sha256(b"weights").hexdigest()


def test_inodes_of_64_bits_are_remembered(model, tmp_path, settled, monkeypatch, caplog):
    status = FileState.of(model)
    state = FileState(status.path, status.size, status.mtime_ns, status.ctime_ns, 2**64 - 1)
    monkeypatch.setattr(FileState, "of", lambda path: state)
    found = FileHashes(tmp_path).get(state)
    model.unlink()
    assert FileHashes(tmp_path).get(state) == found
    assert not caplog.messages
