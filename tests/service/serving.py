"""Workers in processes of their own, their topics, and the callers that ask them."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from confluent_kafka import Consumer, Producer
from patience import PATIENCE
from service.kafka_broker import make_topics

TIMES = "session.timeout.ms:3000,heartbeat.interval.ms:500,transaction.timeout.ms:3000"
PASSWORD = "hunter2"  # of a broker that wants none; what it may not be found in is tested


class Service:
    """Topics of one test, the files of its requests, and its workers, on the demo model: a step takes milliseconds."""

    def __init__(self, broker: tuple[str, Any], folder: Path, environment: dict[str, str]):
        self.servers, self.folder, self._environment = broker[0], folder, environment
        self.name = f"test-{time.time_ns()}"
        names = [f"{self.name}-{suffix}" for suffix in ("requests", "replies", "dead")]
        self.requests, self.replies, self.dead = names
        make_topics(self.servers, names, broker[1])
        self._producer = Producer({"bootstrap.servers": self.servers, "message.max.bytes": 1 << 21})
        self.root = folder / "root"
        self.root.mkdir()
        for name in ("positive", "negative"):
            torch.save(torch.eye(4, 32)[None], self.root / f"{name}.pt")
        torch.save(torch.zeros(1, 16, 1, 16, 16), self.root / "latent.pt")

    @contextlib.contextmanager
    def worker(self, *overrides: str, tracking: str = "none") -> Iterator[subprocess.Popen[str]]:
        """A worker, killed in the end if it has not ended by then."""
        settings = {
            "bootstrap_servers": self.servers,
            "topic": self.requests,
            "reply_topic": self.replies,
            "dead_letter_topic": self.dead,
            "group_id": self.name,
            "roots": f"[{self.root}]",
            "port": "null",
            "kafka": f"{{sasl.password:{PASSWORD},{TIMES}}}",
        }
        given = [f"{'+' if name == 'kafka' else ''}worker.{name}={value}" for name, value in settings.items()]
        environment = {**self._environment, "LATENTGRID_SAMPLING": f"inputs=files tracking={tracking}"}
        command = [sys.executable, "-m", "pipeline", "worker", *given, *overrides]
        with (self.folder / "worker.log").open("a") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=log, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def make_request(self, request_id: str, **changes: Any) -> dict[str, Any]:
        files = {"positive_encoding": "positive", "negative_encoding": "negative", "latent_image": "latent"}
        inputs = {name: {"path": str(self.root / f"{file}.pt")} for name, file in files.items()}
        return {"request_id": request_id, **inputs, "steps": 1, "seed": 1, **changes}

    def send(self, content: dict[str, Any] | bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        key = None if isinstance(content, bytes) else str(content.get("request_id")).encode()
        self._producer.produce(self.requests, body, key, headers=list(headers))
        self._producer.flush(30)

    def read(self, topic: str, count: int, quiet: float = 0.0) -> list[Any]:
        """The first `count` messages of a topic, and those that follow within `quiet` seconds."""
        options = {"auto.offset.reset": "earliest", "group.id": f"{self.name}-{time.time_ns()}"}
        consumer = Consumer({"bootstrap.servers": self.servers, "enable.auto.commit": False, **options})
        consumer.subscribe([topic])
        found: list[Any] = []
        deadline = time.monotonic() + PATIENCE
        while len(found) < count and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and not message.error():
                found.append(message)
        while quiet and (message := consumer.poll(quiet)) is not None:
            if not message.error():
                found.append(message)
        consumer.close()
        assert len(found) >= count, (self.folder / "worker.log").read_text()[-5000:]
        return found

    def wait_for_log(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, (self.folder / "worker.log").read_text()):
            assert time.monotonic() < deadline, (self.folder / "worker.log").read_text()[-5000:]
            time.sleep(0.05)

    def count_answered(self) -> int:
        """How many answers the workers have found so far, whether they could send them or not."""
        log = self.folder / "worker.log"
        return log.read_text().count('"message": "answered: ') if log.is_file() else 0

    def wait_for_answers(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.count_answered() < count:
            assert time.monotonic() < deadline, (self.folder / "worker.log").read_text()[-5000:]
            time.sleep(0.05)


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
