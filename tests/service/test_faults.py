"""The worker under faults, on a real broker: nothing is lost, and nothing is answered twice.

`make faults` has 500 requests in each test and 20 kills; `make test` fewer, so that it takes minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from patience import PATIENCE
from service.kafka_broker import Broker, find_free_port, make_mock_cluster
from service.serving import Service, stop

from pipeline.base.file_state import hash_file

REQUESTS = int(os.environ.get("LATENTGRID_FAULTS", "50"))
ROUNDS = max(2, REQUESTS // 25)  # kills, and other faults of which there can be many
BATCH = REQUESTS // ROUNDS

pytestmark = pytest.mark.timeout(3600)


class Caller:
    """Sends requests, some twice and some that are none, and knows what must come of each."""

    def __init__(self, service: Service, seed: int):
        self.service = service
        self.valid: Counter[str] = Counter()  # by request_id: how often it was sent
        self.poison: dict[bytes, str] = {}  # the body: how its reason begins
        self.answered_poison: Counter[str] = Counter()
        self._random = random.Random(seed)

    def send(self, count: int) -> None:
        """Send `count` messages: every 20th on the average is poison, and every 20th a request of before."""
        for _ in range(count):
            kind = self._random.choices(("new", "again", "poison"), (90, 5, 5))[0]
            if kind == "poison":
                self._send_poison()
            elif kind == "again" and self.valid:
                self._send_valid(self._random.choice(list(self.valid)))
            else:
                self._send_valid(f"r-{len(self.valid)}")

    def _send_valid(self, name: str) -> None:
        """Without a key, so that the same request may be in the hands of two workers at once."""
        self.valid[name] += 1
        self.service.send(json.dumps(self.service.make_request(name, seed=int(name[2:]))).encode())

    def _send_poison(self) -> None:
        number = len(self.poison)
        name = f"p-{number}"
        make = self.service.make_request
        missing = {"path": str(self.service.root / "missing.pt")}
        body, reason = [
            (b"poison %d" % number, "message: Invalid JSON"),
            (json.dumps(make(name, sed=3)).encode(), "sed: is no field"),
            (json.dumps(make(name, latent_image=missing)).encode(), "latent_image.path: cannot be opened"),
            (json.dumps(make(name, sampler_name="eulr")).encode(), "sampler.sampler_name: 'eulr' is not"),
            (json.dumps(make(name, deadline="2020-01-01T00:00:00Z")).encode(), "deadline: has passed"),
        ][number % 5]
        self.poison[body] = reason
        if number % 5:
            self.answered_poison[name] += 1
        self.service.send(body)

    def check(self) -> None:
        """Every message that was sent has its reply, once, every poison is buried, once, and there is nothing else."""
        expected = self.valid + self.answered_poison
        replies = self.service.read(self.service.replies, expected.total(), quiet=5.0)
        contents = [json.loads(reply.value()) for reply in replies]
        assert Counter(content["request_id"] for content in contents) == expected
        assert Counter(reply.key().decode() for reply in replies) == expected
        assert len({reply.value() for reply in replies}) == len(expected), "the same request has the same answer"
        for content in contents:
            assert content["status"] == ("error" if content["request_id"] in self.answered_poison else "ok")
            if content["status"] == "ok":
                file = content["sampled_latent"]
                assert hash_file(Path(file["path"])) == file["sha256"]
                assert content["metadata"]["seed"] == int(content["request_id"][2:])
        letters = self.service.read(self.service.dead, len(self.poison), quiet=5.0)
        assert Counter(letter.value() for letter in letters) == Counter(self.poison.keys())
        for letter in letters:
            (reason,) = json.loads(dict(letter.headers())["reasons"])
            assert reason.startswith(self.poison[letter.value()])


@pytest.fixture
def caller(service, request) -> Caller:
    return Caller(service, len(request.node.name))


def test_killed_workers(own_python, service, caller):
    chance = random.Random(1)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(service.worker()) for _ in range(2)]
        for _ in range(ROUNDS):
            before = service.count_answered()
            caller.send(BATCH)
            service.wait_for_answers(before + 1)
            time.sleep(chance.uniform(0, 1))
            victim = workers.pop(chance.randrange(2))
            victim.kill()
            workers.append(stack.enter_context(service.worker()))
        caller.check()


def test_a_broker_that_dies_and_comes_back(service, caller, broker):
    if not isinstance(broker[1], Broker):
        pytest.skip("this broker cannot be restarted")
    chance = random.Random(2)
    with service.worker() as first, service.worker() as second:
        for _ in range(max(2, ROUNDS // 4)):
            before = service.count_answered()
            caller.send(4 * BATCH)
            service.wait_for_answers(before + 1)
            time.sleep(chance.uniform(0, 1))
            broker[1].stop()
            time.sleep(chance.uniform(0, 3))
            broker[1].start()
        caller.check()
        stop(first)
        stop(second)


def test_workers_that_come_and_go_and_freeze(own_python, service, caller):
    chance = random.Random(3)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(service.worker()) for _ in range(2)]
        for number in range(max(3, ROUNDS // 2)):
            before = service.count_answered()
            caller.send(2 * BATCH)
            service.wait_for_answers(before + 1)
            time.sleep(chance.uniform(0, 1))
            if number % 3 == 0:
                workers.append(stack.enter_context(service.worker()))
            elif number % 3 == 1:  # longer than its session lasts: the others have its requests when it wakes up
                workers[0].send_signal(signal.SIGSTOP)
                time.sleep(5)
                workers[0].send_signal(signal.SIGCONT)
            else:
                stop(workers.pop(0))
        caller.check()


class SmallDisk:
    """A folder on a disk that can be filled: a tmpfs where this process may mount one, else the limit of a process
    on the size of its files stands in."""

    def __init__(self, folder: Path, megabytes: int):
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        self.is_mounted = bool(shutil.which("mount")) and subprocess.run(mount, capture_output=True).returncode == 0
        self._ballast = folder / "ballast"

    def fill(self, worker: subprocess.Popen[str]) -> None:
        if not self.is_mounted:
            psutil.Process(worker.pid).rlimit(psutil.RLIMIT_FSIZE, (1, psutil.RLIM_INFINITY))
            return
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    def free(self, worker: subprocess.Popen[str]) -> None:
        if self.is_mounted:
            self._ballast.unlink()
        else:
            psutil.Process(worker.pid).rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))

    def close(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "disk", 20 + REQUESTS // 2)
    yield made
    made.close()


def test_a_full_disk(service, caller, disk):
    port = find_free_port()
    with service.worker(f"worker.output_root={disk.folder}", f"worker.port={port}") as worker:
        caller.send(REQUESTS)
        service.wait_for_answers(REQUESTS // 10)
        disk.fill(worker)
        wait_until_ready(port, False)
        time.sleep(1)
        answered = service.count_answered()
        time.sleep(5)
        assert service.count_answered() == answered, "nothing is answered while nothing can be written"
        disk.free(worker)
        wait_until_ready(port, True)
        caller.check()
        stop(worker)


def wait_until_ready(port: int, ready: bool) -> None:
    """Wait until /readyz says so."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10):
                is_ready = True
        except urllib.error.HTTPError:
            is_ready = False
        if is_ready == ready:
            return
        time.sleep(0.05)
    raise AssertionError(f"/readyz does not become {ready}")


def test_a_mock_cluster_will_do(tmp_path, environment):
    servers, kept = make_mock_cluster()
    service = Service((servers, kept), tmp_path, environment)
    service.send(service.make_request("a"))
    service.send(b"poison")
    with service.worker() as worker:
        (reply,) = service.read(service.replies, 1)
        (letter,) = service.read(service.dead, 1)
        stop(worker)
    assert json.loads(reply.value())["status"] == "ok"
    assert letter.value() == b"poison"
