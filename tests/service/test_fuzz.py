"""No message does more than being refused: not its bytes, not its key, not its headers."""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import Consumer, Message, Producer
from conftest import PROBES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service.kafka_broker import make_mock_cluster

from pipeline.config.read import WorkerSettings, read_config
from pipeline.errors import NodeError
from pipeline.models.tiny import tiny_folder
from pipeline.runs.process import open_session
from pipeline.service.errors import errors_named
from pipeline.service.handler import RequestHandler
from pipeline.service.health import Health
from pipeline.service.ledger import Ledger
from pipeline.service.sample_latent import Sampling
from pipeline.service.worker import REASONS, Worker

FIELDS = ("unet_model_name", "lora_model_name", "lora_strength", "seed", "steps", "cfg", "sampler_name", "scheduler")
INPUTS = {"positive_encoding": "positive", "negative_encoding": "negative", "latent_image": "latent"}

numbers = st.integers() | st.sampled_from([10**30, -(10**4000), 2**64, 1e308, 5e-324]) | st.floats()
texts = st.text(max_size=20) | st.sampled_from(["${oc.env:HOME}", "???", "\0", "x" * 2000, "../..", "euler", "1e3"])
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([*FIELDS, "denoise", "shift", "strength", "deadline", "version", "request_id", *INPUTS]) | texts
ids = st.sampled_from(["a", "b", "x" * 129, "../a", ""])


@st.composite
def draw_requests(draw: Any) -> bytes:
    """Requests with a few wrong values, some of them cut or in other encodings."""
    inputs = {name: {"path": str(tiny_folder() / f"{file}.pt")} for name, file in INPUTS.items()}
    content = {"request_id": draw(ids), **inputs, **draw(st.dictionaries(names, values, max_size=3))}
    text = json.dumps(content, ensure_ascii=draw(st.booleans()))
    body = text.encode(draw(st.sampled_from(["utf-8", "utf-16", "utf-8-sig"])), errors="surrogatepass")
    return body[: draw(st.integers(0, len(body)))] if draw(st.booleans()) else body


deep = st.builds(
    lambda text, times: (text * times).encode(), st.sampled_from(["[", '{"a":', '{"steps":[']), st.just(9999)
)
bodies = st.none() | st.binary(max_size=100) | deep | draw_requests()
headers = st.lists(
    st.tuples(
        st.sampled_from(["reply-topic", "correlation-id", "origin", "reasons", ""]) | st.text(max_size=5),
        st.none() | st.binary(max_size=20) | st.sampled_from([b"replies", b"..", b"x" * 300]),
    ),
    max_size=4,
)


def check_only(sampling: Sampling) -> None:
    """All of a request but the sampling, which would take hours for some."""
    with errors_named():
        read = read_config(sampling.config)
        open_session(read).check(read.graph, read.run.outputs, read.problems)
        raise NodeError("sampler", "KSampler", {}, RuntimeError("not sampled here"))


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    address, kept = make_mock_cluster()
    yield address
    kept.flush(1)


@pytest.fixture(scope="module")
def worker(session, servers, tmp_path_factory) -> Iterator[Worker]:
    """A worker that samples nothing, so it refuses every message sooner or later."""
    base = ["experiment=tiny", *PROBES, "tracking=none"]
    handler = RequestHandler(base, [tiny_folder()], Ledger(tmp_path_factory.mktemp("requests")), attempts=1)
    made = Worker(WorkerSettings(bootstrap_servers=servers), handler, Health())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampling, "run", check_only)
        yield made
    made.stop()
    made.run()


@pytest.fixture(scope="module")
def producer(servers) -> Producer:
    return Producer({"bootstrap.servers": servers})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(body=bodies, key=st.none() | st.binary(max_size=20), headers=headers)
def test_every_message_has_an_answer_that_can_be_sent(worker, producer, body, key, headers):
    message = Message(topic="t", partition=0, offset=7, key=key, value=body, headers=headers)
    outgoing = worker._answer(message, threading.Event())
    (letter,) = (one for one in outgoing if one.topic == "sampling-dead-letters")
    assert (letter.key, letter.value) == (key, body)
    assert letter.headers[:-2] == headers
    (_, origin), (_, reasons) = letter.headers[-2:]
    assert origin == b"t/0/7"
    assert json.loads(reasons)
    assert not [reason for reason in json.loads(reasons) if reason.startswith("worker:")], "a fault of latentgrid"
    for one in outgoing:
        producer.produce(one.topic, one.value, one.key, headers=one.headers)
    assert producer.flush(10) == 0


def test_no_environment_variable_gets_into_an_answer(worker, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    inputs = {name: {"path": str(tiny_folder() / f"{file}.pt")} for name, file in INPUTS.items()}
    body = json.dumps({"request_id": "a", **inputs, "sampler_name": "${oc.env:SECRET}"}).encode()
    reply, letter = worker._answer(Message(topic="t", partition=0, offset=7, value=body), threading.Event())
    assert b"must not have '${', got '${oc.env:SECRET}'" in reply.value
    assert b"hunter2" not in reply.value + dict(letter.headers)[REASONS]


def test_a_header_whose_name_is_no_text_is_refused(worker, servers):
    send_nameless_header(servers, b"wild")
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["wild"])
    message = consumer.poll(60)
    (letter,) = worker._answer(message, threading.Event())
    consumer.close()
    assert letter.value == b"value"
    assert json.loads(dict(letter.headers)[REASONS]) == ["headers: a name is not UTF-8"]


def send_nameless_header(servers: str, topic: bytes) -> None:
    """Send what confluent_kafka would not: by librdkafka itself, the one that confluent_kafka brings along."""
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    found = sorted(folder.glob("librdkafka-*"))
    if not found:
        pytest.skip("this confluent_kafka was built on a librdkafka of the system")
    kafka, error, pointer = ctypes.CDLL(str(found[0])), ctypes.create_string_buffer(512), ctypes.c_void_p
    kafka.rd_kafka_conf_new.restype = kafka.rd_kafka_new.restype = kafka.rd_kafka_headers_new.restype = pointer
    conf = pointer(kafka.rd_kafka_conf_new())
    assert kafka.rd_kafka_conf_set(conf, b"bootstrap.servers", servers.encode(), error, 512) == 0
    producer, named = pointer(kafka.rd_kafka_new(0, conf, error, 512)), pointer(kafka.rd_kafka_headers_new(1))
    kafka.rd_kafka_header_add(named, b"\xff", ctypes.c_ssize_t(1), b"x", ctypes.c_ssize_t(1))
    end, of_topic, of_value, of_flags, of_headers, copied = 0, 1, 4, 7, 10, 2
    value = (of_value, b"value", ctypes.c_size_t(5))
    assert kafka.rd_kafka_producev(producer, of_topic, topic, *value, of_flags, copied, of_headers, named, end) == 0
    assert kafka.rd_kafka_flush(producer, 30_000) == 0
    kafka.rd_kafka_destroy(producer)
