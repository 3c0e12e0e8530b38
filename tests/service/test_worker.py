"""The real worker, in processes of its own, on a real broker."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

import pytest
import torch
from confluent_kafka.admin import AdminClient
from patience import PATIENCE
from service.kafka_broker import Broker, make_topics
from service.serving import PASSWORD, stop


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_requests_are_answered_once_and_what_is_none_is_buried(service):
    service.send(service.make_request("a", seed=5), [("correlation-id", b"c-1")])
    service.send(service.make_request("a", seed=5))
    service.send(service.make_request("a", seed=6))
    service.send(b"poison", [("trace", b"t")])
    service.send(service.make_request("b", steps=0, sampler_name="eulr"))
    service.send(service.make_request("c", latent_image={"path": str(service.folder / "worker.log")}))
    service.send(service.make_request("d", deadline="2020-01-01T00:00:00Z"))
    service.send(service.make_request("e"), [("reply-topic", b"nowhere")])
    service.send(b"x" * 1_048_500)  # as large as the broker takes: with the reasons it is too large for a dead letter
    with service.worker("worker.port=0", tracking="mlflow") as worker:
        replies = service.read(service.replies, 7)
        dead = service.read(service.dead, 7)
        (port,) = re.findall(r"metrics on port (\d+)", (service.folder / "worker.log").read_text())
        wait_until_ready(int(port))
        assert fetch(int(port), "/healthz")[0] == 200
        assert fetch(int(port), "/nothing")[0] == 404
        with socket.create_connection(("127.0.0.1", int(port))):  # on which nothing is asked
            assert fetch(int(port), "/healthz")[0] == 200
        metrics = fetch(int(port), "/metrics")[1]
        assert 'latentgrid_requests_total{status="answered"} 2.0' in metrics
        assert 'latentgrid_requests_total{status="refused"} 7.0' in metrics
        stop(worker)

    written = [path for path in (service.folder / "outputs").rglob("*") if path.is_file()]
    assert {"mlflow.db", "config.yaml", "record.json"} <= {path.name for path in written}
    assert not [path for path in written if PASSWORD.encode() in path.read_bytes()]

    by_id: dict[str, list[dict[str, Any]]] = {}
    for reply in replies:
        content = json.loads(reply.value())
        assert reply.key().decode() == content["request_id"]
        by_id.setdefault(content["request_id"], []).append(content)
    first, again, other = by_id["a"]
    assert first == again
    assert first["status"] == "ok"
    assert next(dict(reply.headers() or []) for reply in replies if reply.key() == b"a") == {"correlation-id": b"c-1"}
    latent = torch.load(first["sampled_latent"]["path"], weights_only=True)["samples"]
    assert list(latent.shape) == first["sampled_latent_shape"]
    assert first["metadata"]["seed"] == 5
    assert first["metadata"]["run_id"]
    assert "was used for another request before" in other["error"]["message"]
    assert by_id["b"][0]["error"]["type"] == "ConfigError"
    assert "sampler.steps: must be at least 1" in by_id["b"][0]["error"]["message"]
    assert by_id["d"][0]["error"]["type"] == "DeadlineExceededError"
    assert "header reply-topic: " in by_id["e"][0]["error"]["message"]

    buried = {letter.value(): dict(letter.headers()) for letter in dead}
    assert buried[b"poison"]["trace"] == b"t"
    assert json.loads(buried[None]["reasons"])[0].startswith("message: Invalid JSON")
    assert buried[b"poison"]["origin"].decode().startswith(f"{service.requests}/")
    reasons = [reason for headers in buried.values() for reason in json.loads(headers["reasons"])]
    assert any(reason.startswith("latent_image.path: is in none of the folders") for reason in reasons)
    assert any("did you mean 'euler'" in reason for reason in reasons)


def test_no_reply_and_no_letter_holds_up_the_others(service):
    """A topic for replies that is gone, headers as large as a message may be, names of topics that are Kafka's own."""
    admin, temporary = AdminClient({"bootstrap.servers": service.servers}), f"{service.name}-temporary"
    service.send(service.make_request("a", steps=150), [("reply-topic", temporary.encode())])
    service.send(service.make_request("b", steps=150), [("reply-topic", temporary.encode())])
    for name in ("__consumer_offsets", service.requests, service.dead):
        service.send(service.make_request(name.strip("_")), [("reply-topic", name.encode())])
    service.send(service.make_request("c"), [("correlation-id", b"c" * 1_047_000)])
    service.send(b"poison", [("trace", b"t" * 1_048_400)])
    service.send(service.make_request("d"))
    make_topics(service.servers, [temporary], None)
    with service.worker() as worker:
        service.wait_for_log("sampler: KSampler")
        for future in admin.delete_topics([temporary]).values():
            future.result(30)
        replies = {reply.key().decode(): json.loads(reply.value()) for reply in service.read(service.replies, 7)}
        refused = [key for key, reply in replies.items() if reply["status"] == "error"]
        dead = service.read(service.dead, len(refused) + 1)  # and the poison, which has no reply
        stop(worker)
    assert {"c", "consumer_offsets", service.requests, service.dead} <= {*refused} <= {*replies} - {"d"}
    assert "ok" in (replies["a"]["status"], replies["b"]["status"])  # the one that was not checked yet may be refused
    assert replies["d"]["status"] == "ok"
    assert "header correlation-id: must have at most 1024 bytes" in replies["c"]["error"]["message"]
    for name in ("consumer_offsets", service.requests, service.dead):
        assert "header reply-topic: is no name of a topic for replies" in replies[name]["error"]["message"]
    stripped = [dict(letter.headers()) for letter in dead if letter.value() is None and len(letter.headers()) == 2]
    assert any("Invalid JSON" in headers["reasons"].decode() for headers in stripped)


def test_dead_letters_can_be_driven_again(service, environment):
    """Each once, whether they are refused again or not."""

    def redrive(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        names = {"bootstrap_servers": service.servers, "topic": service.requests, "dead_letter_topic": service.dead}
        given = [f"worker.{name}={value}" for name, value in {**names, "group_id": service.name, **changes}.items()]
        command = [sys.executable, "-m", "pipeline", "redrive", *words, *given]
        return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=PATIENCE)

    request = service.make_request("late", latent_image={"path": str(service.root / "later.pt")})
    service.send(request, [("correlation-id", b"c")])
    with service.worker() as worker:
        service.read(service.dead, 1)
        shutil.copy(service.root / "latent.pt", service.root / "later.pt")
        done = redrive("--limit", "1")
        assert done.stdout == f"1 dead letters sent to {service.requests}\n", done.stderr
        replies = service.read(service.replies, 2)
        service.send(b"poison")
        service.send(b"x" * 1_048_500)
        service.read(service.dead, 3)
        done = redrive()
        assert done.stdout == f"1 dead letters sent to {service.requests}; 1 without their bytes are left\n", (
            done.stderr
        )
        service.read(service.dead, 4)
        stop(worker)
    assert [json.loads(reply.value())["status"] for reply in replies] == ["error", "ok"]
    assert [dict(reply.headers()) for reply in replies] == [{"correlation-id": b"c"}] * 2
    done = redrive(dead_letter_topic="nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "worker.dead_letter_topic: Broker: Unknown topic or partition, got 'nowhere'" in done.stderr
    done = redrive(bootstrap_servers="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "worker.bootstrap_servers: '127.0.0.1:1' does not answer" in done.stderr


def test_a_killed_worker_loses_nothing(service):
    for number in range(6):
        service.send(service.make_request(f"r-{number}", seed=number, steps=4))
    with service.worker() as first:
        service.wait_for_log('"answered: .*"request_id": "r-')
        first.kill()
    with service.worker() as second, service.worker() as third:
        service.send(service.make_request("last"))
        service.wait_for_log('"answered: .*"request_id": "last"')
        second.kill()
        replies = service.read(service.replies, 7, quiet=10.0)
        stop(third)
    assert sorted(json.loads(reply.value())["request_id"] for reply in replies) == [
        "last",
        *(f"r-{number}" for number in range(6)),
    ]
    assert service.read(service.dead, 0, quiet=3.0) == []


def load(message):
    return json.loads(message.value())


def test_sampling_longer_than_the_poll_interval_keeps_the_partition(service):
    kafka = "{session.timeout.ms:3000,heartbeat.interval.ms:500,max.poll.interval.ms:3000}"
    service.send(service.make_request("warm"))
    service.send(service.make_request("probe", steps=20))
    with service.worker(f"+worker.kafka={kafka}") as worker:
        first = {reply["request_id"]: reply for reply in map(load, service.read(service.replies, 2))}
        seconds_per_step = first["probe"]["metadata"]["seconds"]["sampling"] / 20
        service.send(service.make_request("slow", steps=math.ceil(8 / seconds_per_step)))
        service.send(service.make_request("quick"))
        replies = [load(reply) for reply in service.read(service.replies, 4, quiet=3.0)]
        stop(worker)
    assert Counter(reply["request_id"] for reply in replies) == Counter(["warm", "probe", "slow", "quick"])
    (slow,) = [reply for reply in replies if reply["request_id"] == "slow"]
    assert slow["metadata"]["seconds"]["sampling"] > 3.0


def test_a_request_in_hand_is_handed_back_after_the_grace(service):
    service.send(service.make_request("long", steps=10000))
    with service.worker("worker.grace_seconds=0.5") as worker:
        service.wait_for_log("sampler: KSampler")
        stop(worker)
    service.wait_for_log("handed back: the request at")
    attempts = service.folder / "outputs/requests/long/attempts.json"
    assert json.loads(attempts.read_text()) == {"attempts": 0}


def test_a_broker_that_comes_back_finds_its_worker(service, broker):
    if not isinstance(broker[1], Broker):
        pytest.skip("this broker cannot be restarted")
    service.send(service.make_request("before"))
    with service.worker() as worker:
        service.read(service.replies, 1)
        broker[1].stop()
        time.sleep(2)
        broker[1].start()
        service.send(service.make_request("after"))
        replies = service.read(service.replies, 2, quiet=10.0)
        stop(worker)
    assert sorted(json.loads(reply.value())["request_id"] for reply in replies) == ["after", "before"]


def test_a_worker_is_ready_when_it_has_found_its_topics(service, broker):
    service.send(service.make_request("a"))
    late = f"{service.name}-late"
    with service.worker("worker.port=0", f"worker.reply_topic={late}") as worker:
        service.wait_for_log(f"not ready: worker.reply_topic: .*{late}")
        (port,) = re.findall(r"metrics on port (\d+)", (service.folder / "worker.log").read_text())
        assert fetch(int(port), "/healthz")[0] == 200
        assert fetch(int(port), "/readyz")[0] == 503
        make_topics(service.servers, [late], broker[1])
        service.read(late, 1)
        wait_until_ready(int(port))
        stop(worker)


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while fetch(port, "/readyz")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def check(environment, tmp_path, *overrides: str) -> str:
    """What a worker says that is not to start with these settings."""
    command = [sys.executable, "-m", "pipeline", "worker", *overrides]
    environment["LATENTGRID_SAMPLING"] = environment.get("LATENTGRID_SAMPLING", "experiment=tiny")
    done = subprocess.run(command, env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1
    return done.stderr


def test_wrong_settings_are_named_before_anything_starts(environment, tmp_path):
    wrong = ["roots=[]", "output_root=/proc/x", "attempts=0", "grace_seconds=-1", "port=70000", "group_id=''"]
    topics = ["topic=t", "reply_topic=t"]
    given = [f"worker.{one}" for one in [*wrong, *topics]]
    told = check(environment, tmp_path, *given, "+worker.kafka={foo:bar}", "run.outputs=[latent]", "unet.unet_name=x")
    for line in (
        "worker.roots: names no folder that inputs may lie in",
        "worker.output_root: the output folder cannot be written, got '/proc/x'",
        "worker.attempts: must be at least 1, got 0",
        "worker.grace_seconds: must be at least 0, got -1",
        "worker.port: must be from 0 to 65535, or null for none, got 70000",
        "worker.group_id: must not be empty",
        "worker.topic: must differ from worker.reply_topic",
        'worker.kafka: librdkafka does not take it: No such configuration property: "foo"',
        "run.outputs: must have 'sampler', got ['latent']",
    ):
        assert f"\n{line}" in f"\n{told}"
    assert "there is no such folder, got '/none'" in check(environment, tmp_path, "worker.roots=[/none]")
    told = check(environment, tmp_path, f"worker.roots=[{tmp_path}]", "worker.port=0", "unet.unet_name=x")
    assert told.splitlines()[-1].startswith("unet.unet_name: 'x' is not in")


def test_a_port_that_is_taken_and_a_variable_that_is_wrong_are_named(environment, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = check(environment, tmp_path, f"worker.roots=[{tmp_path}]", f"worker.port={port}")
        assert told.splitlines()[-1].startswith(f"worker.port: cannot be used, got {port}: Address already in use")
    environment["LATENTGRID_SAMPLING"] = 'a"b'
    assert "environment variable LATENTGRID_SAMPLING: must be overrides" in check(environment, tmp_path)
