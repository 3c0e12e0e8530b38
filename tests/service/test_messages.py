"""What the worker reads and refuses, without a broker."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.base.file_state import hash_file
from pipeline.service.claims import take_file
from pipeline.service.ledger import Ledger
from pipeline.service.messages import (
    KafkaSamplingResponse,
    RefusedRequest,
    TensorFile,
    describe_file,
    find_request_id,
    read_request,
)

FILE = {"path": "/data/a.pt"}


def make_request(**changes: Any) -> dict[str, Any]:
    return {"request_id": "r-1", "positive_encoding": FILE, "negative_encoding": FILE, "latent_image": FILE, **changes}


def read(**changes: Any):
    return read_request(json.dumps(make_request(**changes)).encode())


def test_a_request_has_the_defaults_of_sample_latent():
    import inspect

    from pipeline.service.sample_latent import SETTINGS, sample_latent

    request, parameters = read(), inspect.signature(sample_latent).parameters
    assert all(getattr(request, name) == parameters[name].default for name in SETTINGS)


def test_every_mistake_in_a_message_is_named():
    with pytest.raises(RefusedRequest) as caught:
        read(steps="many", sed=3, request_id="../x", latent_image={"path": "", "size": -1}, cfg=float("nan"))
    assert sorted(reason.partition(":")[0] for reason in caught.value.reasons) == [
        "cfg",
        "latent_image.path",
        "latent_image.size",
        "request_id",
        "sed",
        "steps",
    ]


@pytest.mark.parametrize("body", [None, b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"request_id": 3}', b"9" * 5000])
def test_what_is_no_request_is_refused(body):
    with pytest.raises(RefusedRequest):
        read_request(body)
    assert find_request_id(body) is None


def test_the_sender_of_a_wrong_request_is_known():
    assert find_request_id(json.dumps({"request_id": "r-1", "steps": "x"}).encode()) == "r-1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sed": 3}, "sed: is no field; did you mean 'seed'?"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, got -1"),
        ({"steps": "4"}, "steps: Input should be a valid integer, got '4'"),
        ({"steps": True}, "steps: Input should be a valid integer, got True"),
        ({"cfg": True}, "cfg: Input should be a valid number, got True"),
        ({"deadline": 1900000000}, "deadline: Input should be a valid datetime, got 1900000000"),
        ({"scheduler": "x" * 2000}, f"scheduler: String should have at most 1024 characters, got '{'x' * 79} ..."),
    ],
)
def test_a_mistake_is_told_with_its_value(changes, reason):
    with pytest.raises(RefusedRequest) as caught:
        read(**changes)
    assert caught.value.reasons == (reason,)


@given(st.binary(max_size=200) | st.dictionaries(st.sampled_from([*make_request(), "seed", "x"]), json_values))
def test_no_message_does_more_than_being_refused(content):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    try:
        read_request(body)
    except RefusedRequest as error:
        assert error.reasons
    find_request_id(body)


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a.pt").write_bytes(b"abc")
    (tmp_path / "secret.pt").write_bytes(b"abc")
    (folder / "link.pt").symlink_to(tmp_path / "secret.pt")
    (folder / "inner.pt").symlink_to(folder / "a.pt")
    (folder / "self.pt").symlink_to(folder / "self.pt")
    return folder


@pytest.mark.parametrize(
    "path", ["{root}/a.pt", "file://{root}/a.pt", "file://localhost{root}/a.pt", "{root}/inner.pt"]
)
def test_a_file_inside_a_root_is_found(root, path):
    file = TensorFile(path=path.format(root=root), size=3, sha256=hash_file(root / "a.pt"))
    copy = take_file("x", file, [root], root.parent, "copy")
    (root / "a.pt").write_bytes(b"abd")
    assert copy == root.parent / "copy.pt"
    assert copy.read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{root}/../secret.pt", "x.path: must not have '..'"),
        ("file://{root}/%2e%2e/secret.pt", "x.path: must not have '..'"),
        ("{root}/link.pt", "x.path: is in none of the folders of worker.roots"),
        ("{root}/self.pt", "x.path: cannot be opened"),
        ("{root}/missing.pt", "x.path: cannot be opened"),
        ("{root}", "x.path: is no file"),
        ("a.pt", "x.path: must be absolute"),
        ("s3://bucket/a.pt", "x.path: must be a path or file:///PATH"),
        ("file://host/a.pt", "x.path: must be a path or file:///PATH"),
        ("file://[/a.pt", "x.path: is no URI"),
        ("/a\0b", "x.path: must not have a null character"),
        ("file:///a%00b", "x.path: must not have a null character"),
        ("/" + "a" * 4000, "x.path: cannot be opened"),
    ],
)
def test_a_file_elsewhere_is_refused(root, path, reason):
    with pytest.raises(RefusedRequest, match=reason):
        take_file("x", TensorFile(path=path.format(root=root)), [root], root.parent, "copy")


def test_a_file_that_is_not_what_the_message_says_is_refused(root):
    upper = TensorFile(path=str(root / "a.pt"), sha256=hash_file(root / "a.pt").upper())
    assert take_file("x", upper, [root], root.parent, "copy")
    with pytest.raises(RefusedRequest, match=r"x\.size: the file has 3 bytes, got 4"):
        take_file("x", TensorFile(path=str(root / "a.pt"), size=4), [root], root.parent, "copy")
    with pytest.raises(RefusedRequest, match=r"x\.sha256: the file has ba7816bf"):
        take_file("x", TensorFile(path=str(root / "a.pt"), sha256="0" * 64), [root], root.parent, "copy")


def test_no_file_is_waited_for_and_none_that_became_another_is_read(root, monkeypatch):
    os.mkfifo(root / "pipe.pt")
    with pytest.raises(RefusedRequest, match=r"x\.path: is no file"):
        take_file("x", TensorFile(path=str(root / "pipe.pt")), [root], root.parent, "copy")

    def swap(path, *args):
        path.unlink()
        path.symlink_to(root.parent / "secret.pt")
        return os_open(path, *args)

    os_open = os.open
    monkeypatch.setattr("pipeline.service.claims.os.open", swap)
    with pytest.raises(RefusedRequest, match=r"x\.path: is in none of the folders of worker\.roots"):
        take_file("x", TensorFile(path=str(root / "a.pt")), [root], root.parent, "copy")
    monkeypatch.undo()
    assert not list(root.parent.glob("copy*"))


@pytest.mark.parametrize("name", ["link.pt", "../secret.pt", "{outside}"])
def test_a_file_elsewhere_is_not_even_opened(root, monkeypatch, name):
    """Some files do something when they are opened (a tape, a device, a pipe whose writer waits)."""
    opened = []
    monkeypatch.setattr("pipeline.service.claims.os.open", lambda path, *args: opened.append(path))
    with pytest.raises(RefusedRequest):
        path = root / name.format(outside=root.parent / "secret.pt")
        take_file("x", TensorFile(path=str(path)), [root], root.parent, "copy")
    assert opened == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(min_size=1, max_size=60))
def test_no_path_does_more_than_being_refused(root, path):
    with pytest.raises(RefusedRequest):
        take_file("x", TensorFile(path=path), [root / "nothing"], root.parent, "copy")


def test_an_answer_is_found_again_while_its_file_is_intact(tmp_path):
    ledger, request = Ledger(tmp_path), read(seed=1)
    assert ledger.find_answer(request) is None
    assert [ledger.begin_attempt(request), ledger.begin_attempt(request)] == [1, 2]
    ledger.take_back_attempt(request, 2)
    assert ledger.begin_attempt(request) == 2
    latent = ledger.get_folder(request) / "sampler.pt"
    latent.write_bytes(b"x")
    answer = KafkaSamplingResponse(request_id="r-1", status="ok", sampled_latent=describe_file(latent))
    ledger.keep_answer(request, answer)
    assert ledger.find_answer(request) == answer
    assert ledger.find_answer(read(seed=1, deadline="2030-01-01T00:00:00Z")) == answer
    with pytest.raises(RefusedRequest, match="request_id: was used for another request before, got 'r-1'"):
        ledger.find_answer(read(seed=2))
    latent.write_bytes(b"y")
    assert ledger.find_answer(request) is None
