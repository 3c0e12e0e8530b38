"""The examples in API.md do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from typing import Any

import pytest
from conftest import PROBES, ROOT
from patience import PATIENCE

from pipeline.models.tiny import make_tiny_model, tiny_folder
from pipeline.service.handler import RequestHandler, refuse
from pipeline.service.health import Health
from pipeline.service.ledger import Ledger
from pipeline.service.messages import (
    KafkaSamplingRequest,
    KafkaSamplingResponse,
    RefusedRequest,
    TensorFile,
    read_request,
)

TEXT = (ROOT / "API.md").read_text(encoding="utf-8")
SAMPLING, PROMPTS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def run_code(environment, tmp_path):
    def run(code: str) -> list[str]:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_the_sampling_example_samples(run_code, environment, tmp_path):
    for name in ("positive", "negative", "latent"):
        shutil.copy(make_tiny_model() / f"{name}.pt", tmp_path)
    environment["LATENTGRID_SAMPLING"] = "experiment=tiny"
    (said,) = run_code(SAMPLING + 'print(result["sampled_latent_tensor"])')
    assert said == str(tmp_path / "results/a-1/sampler.pt")
    assert (tmp_path / "results/a-1/sampler.pt").is_file()


REQUEST, REPLY, ERROR = map(json.loads, re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def answer(session, tmp_path):
    """Answers the request of the example, with changes, as the worker does; on the tiny model and its files."""
    for name in ("positive", "negative", "latent"):
        shutil.copy(tiny_folder() / f"{name}.pt", tmp_path)
    base = [*PROBES, "experiment=tiny", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"]
    handler = RequestHandler(base, [tmp_path], Ledger(tmp_path / "results"), 1)
    files = {"positive_encoding": "positive.pt", "negative_encoding": "negative.pt", "latent_image": "latent.pt"}
    places = {field: {"path": str(tmp_path / name)} for field, name in files.items()}

    def answer(**changes: Any) -> dict[str, Any]:
        request_id = changes.get("request_id", REQUEST["request_id"])
        try:
            request = read_request(json.dumps({**REQUEST, **places, **changes}).encode())
            response = handler.answer(request, threading.Event())
        except RefusedRequest as error:
            response = refuse(request_id, error)
        return json.loads(response.model_dump_json())

    yield answer
    handler.close()


def find_form(value: Any) -> Any:
    """A message without its values."""
    if isinstance(value, dict):
        return {name: find_form(one) for name, one in value.items()}
    return [find_form(value[0])] if isinstance(value, list) else type(value).__name__


def test_the_request_gets_a_reply_of_the_form_that_is_shown(answer):
    reply = answer()
    assert find_form(reply) == find_form(REPLY)
    same = ("version", "request_id", "status", "error")
    assert {name: reply[name] for name in same} == {name: REPLY[name] for name in same}
    settings = {**REPLY["metadata"]["settings"], "unet_model_name": None, "lora_model_name": None}
    assert {**reply["metadata"]["settings"], "unet_model_name": None, "lora_model_name": None} == settings


def test_the_wrong_request_gets_the_error_that_is_shown(answer):
    assert answer(request_id="a-2", steps=0, sampler_name="eulr") == ERROR


def test_every_type_of_error_is_named(answer, tmp_path):
    other = answer(latent_image={"path": "/etc/hostname"})
    types = [answer(step=1), other, answer(unet_model_name="x"), answer(lora_model_name="x"), answer(cfg=-1)]
    (tmp_path / "latent.pt").write_bytes(b"no tensor")
    types += [answer(), answer(deadline="2020-01-01T12:00:00Z")]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`.*?) \|", TEXT.partition("`error.type`")[2], re.M)))
    for reply in types:
        assert reply["error"]["type"] in named
    assert len({reply["error"]["type"] for reply in types}) == 6


def test_every_field_is_listed():
    first = "".join(
        re.findall(r"^\| (`\w+`.*?) \|", TEXT.partition("field of a request")[2].partition("header")[0], re.M)
    )
    fields = [*KafkaSamplingRequest.model_fields, *TensorFile.model_fields]
    assert sorted(re.findall(r"`(\w+)`", first)) == sorted(fields)
    assert set(REPLY) == set(KafkaSamplingResponse.model_fields)


def test_every_metric_is_named():
    health = Health()
    port = health.bind(0)
    health.serve()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        names = re.findall(r"^# TYPE (\w+)", response.read().decode(), re.MULTILINE)
    assert names
    assert not [name for name in names if not name.endswith("_created") and f"`{name}`" not in TEXT]


def test_the_prompt_example_prints_what_it_says(run_code):
    assert run_code(PROMPTS) == re.findall(r"print\(.*\)  # (.*)", PROMPTS)
