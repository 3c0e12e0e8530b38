"""How requests end that are not answered: by their deadline, or because they are to be let go. On the tiny model."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import PROBES
from filelock import FileLock

from pipeline.base.file_state import hash_file
from pipeline.models.tiny import tiny_folder
from pipeline.service.handler import HandedBack, RequestHandler, refuse
from pipeline.service.ledger import Ledger
from pipeline.service.messages import DeadlineExceededError, KafkaSamplingRequest, RefusedRequest

SLOW = 9999  # steps: hours
SOON = timedelta(seconds=1)


def make_request(**changes) -> KafkaSamplingRequest:
    files = {"positive_encoding": "positive", "negative_encoding": "negative", "latent_image": "latent"}
    inputs = {name: {"path": str(tiny_folder() / f"{file}.pt")} for name, file in files.items()}
    return KafkaSamplingRequest.model_validate({"request_id": "r", **inputs, "steps": 1, **changes})


@pytest.fixture
def make_handler(session, tmp_path):
    def make(tracking: str = "tracking=none") -> RequestHandler:
        return RequestHandler(["experiment=tiny", *PROBES, tracking], [tiny_folder()], Ledger(tmp_path), 3)

    return make


def read_attempts(folder: Path) -> int:
    path = folder / "r/attempts.json"
    return json.loads(path.read_text())["attempts"] if path.exists() else 0


def test_a_deadline_ends_the_sampling(make_handler, tmp_path):
    request = make_request(steps=SLOW, deadline=datetime.now(UTC) + SOON)
    handler = make_handler()
    with pytest.raises(DeadlineExceededError, match="deadline: has passed, got") as caught:
        handler.answer(request, threading.Event())
    assert refuse("r", caught.value).error.type == "DeadlineExceededError"
    assert read_attempts(tmp_path) == 0
    assert handler.answer(make_request(request_id="next"), threading.Event()).status == "ok"


def test_a_deadline_ends_the_wait_for_the_record(make_handler, tmp_path):
    with FileLock(tmp_path / "mlflow.db.lock"):  # as if another process made the store, and took forever
        handler = make_handler(f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
        answer = handler.answer(make_request(deadline=datetime.now(UTC) + 10 * SOON), threading.Event())
    assert answer.status == "ok"
    assert answer.metadata["run_id"] is None
    assert "by the deadline" in answer.metadata["record_error"]


def test_a_deadline_ends_the_tries_to_reach_mlflow(make_handler):
    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(403)

        do_POST = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        handler = make_handler(f"tracking.uri=http://127.0.0.1:{server.server_port}")
        with pytest.raises(DeadlineExceededError):
            handler.answer(make_request(deadline=datetime.now(UTC) + 3 * SOON), threading.Event())
        server.shutdown()


def test_a_record_that_fails_after_the_sampling_is_no_reason_to_sample_again(make_handler, tmp_path, caplog):
    (tmp_path / "mlartifacts").write_text("no folder")  # the store takes the run and not its files
    answer = make_handler(f"tracking.uri=sqlite:///{tmp_path}/mlflow.db").answer(make_request(), threading.Event())
    assert answer.status == "ok"
    assert answer.sampled_latent.sha256 == hash_file(tmp_path / "r/sampler.pt")
    assert answer.metadata["run_id"] is None
    assert "mlartifacts" in answer.metadata["record_error"]
    assert "tried again" not in caplog.text


def test_a_request_is_let_go_between_two_steps(make_handler, tmp_path):
    let_go = threading.Event()
    threading.Timer(1, let_go.set).start()
    with pytest.raises(HandedBack):
        make_handler().answer(make_request(steps=SLOW), let_go)
    assert read_attempts(tmp_path) == 0


def test_a_request_in_other_hands_is_waited_for(make_handler, tmp_path):
    request, handler, let_go = make_request(), make_handler(), threading.Event()
    other = Ledger(tmp_path).get_lock(request)
    with other:
        threading.Timer(0.3, let_go.set).start()
        with pytest.raises(HandedBack):
            handler.answer(request, let_go)
    first = handler.answer(request, threading.Event())
    assert handler.answer(request, threading.Event()) == first


def test_a_request_without_a_seed_has_one_of_its_own(make_handler, tmp_path):
    request, handler = make_request(), make_handler()
    first = handler.answer(request, threading.Event())
    (tmp_path / "r/response.json").write_text("{")  # as after a crash of the machine
    assert handler.answer(request, threading.Event()).sampled_latent == first.sampled_latent
    other = handler.answer(make_request(request_id="s"), threading.Event())
    assert other.metadata["seed"] != first.metadata["seed"]


def test_a_request_whose_latent_is_removed_is_sampled_again_any_number_of_times(make_handler, tmp_path):
    handler = make_handler()
    for _ in range(4):  # one more than attempts
        assert handler.answer(make_request(), threading.Event()).status == "ok"
        assert read_attempts(tmp_path) == 0
        (tmp_path / "r/sampler.pt").unlink()


def test_hashes_of_an_earlier_record_are_not_claimed(make_handler, tmp_path):
    recorded = make_handler(f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    first = recorded.answer(make_request(), threading.Event())
    assert first.metadata["models"]["unet_model_name"]["sha256"]
    assert (tmp_path / "r/record.json").exists()
    (tmp_path / "r/sampler.pt").unlink()
    again = make_handler().answer(make_request(), threading.Event())
    assert again.metadata["run_id"] is None
    assert again.metadata["models"]["unet_model_name"]["sha256"] is None
    assert not (tmp_path / "r/record.json").exists()


def test_a_folder_that_is_of_no_use_holds_up_no_other_request(make_handler, tmp_path):
    (tmp_path / "r").write_text("")
    with pytest.raises(RefusedRequest, match="request_id: its folder is of no use, got 'r'"):
        make_handler().answer(make_request(), threading.Event())
