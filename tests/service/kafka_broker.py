"""A real Kafka broker for the tests: the one that KAFKA_BOOTSTRAP_SERVERS names, or one of our own.

Ours is Apache Kafka in KRaft mode, from jars that Maven fetches once into the cache folder. Without Java and Maven it
is the mock cluster of librdkafka, which knows no restart.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from filelock import FileLock
from patience import PATIENCE

from pipeline.base.cache_folder import cache_folder

POM = Path(__file__).parent / "broker" / "pom.xml"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
"""


class Broker:
    """Apache Kafka on the loopback, its data in `folder`. Can be stopped and started again."""

    def __init__(self, jars: Path, folder: Path):
        self._folder = folder
        self._java = ["java", "-Xmx256m", "-cp", f"{jars}/*"]
        self._process: subprocess.Popen[bytes] | None = None
        self._port, controller = find_free_port(), find_free_port()
        self.servers = f"127.0.0.1:{self._port}"
        text = PROPERTIES.format(port=self._port, controller=controller, data=folder / "data")
        (folder / "server.properties").write_text(text)
        self._run("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties")

    def start(self) -> None:
        """Start, and wait until it listens."""
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", "server.properties"], cwd=self._folder, stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "broker.log").read_text()[-2000:]) from None
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop, as by a crash."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def _run(self, *words: str) -> None:
        subprocess.run([*self._java, *words], cwd=self._folder, check=True, capture_output=True, timeout=PATIENCE)


def find_broker(folder: Path) -> tuple[str, Any]:
    """Its bootstrap servers, and the `Broker` or whatever else has to be kept and stopped."""
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return servers, None
    if not (shutil.which("java") and shutil.which("mvn")):
        return make_mock_cluster()
    broker = Broker(_fetch_jars(), folder)
    broker.start()
    return broker.servers, broker


def make_topics(servers: str, names: Sequence[str], kept: Any) -> None:
    """Make topics with three partitions; a mock cluster makes those that it is asked for, with four."""
    admin = AdminClient({"bootstrap.servers": servers})
    if isinstance(kept, Producer):
        for name in names:
            admin.list_topics(name, 10)
        return
    for future in admin.create_topics([NewTopic(name, 3, 1) for name in names]).values():
        future.result(30)


def _fetch_jars() -> Path:
    jars = cache_folder() / "kafka-3.9.1"
    with FileLock(f"{jars}.lock"):
        if not jars.is_dir():
            part = jars.with_name(f"{jars.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={part}"]
            subprocess.run(command, check=True, timeout=PATIENCE)
            part.rename(jars)
    return jars


def make_mock_cluster() -> tuple[str, Producer]:
    """The one of librdkafka, on the loopback, and the client that it lives with.

    It keeps no offsets that come in transactions, so a worker that comes back begins anew.
    """
    client = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
    (broker,) = client.list_topics(timeout=10).brokers.values()
    return f"{broker.host}:{broker.port}", client


def find_free_port() -> int:
    """A port on the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
