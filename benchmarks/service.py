"""What a request of the Kafka worker costs beyond sampling, beside a bare loop over the same nodes.

    python benchmarks/service.py                          about ten minutes on two cores
    python benchmarks/service.py --rounds 2 --requests 5  a quick look

The graph is that of experiment=tiny, with four steps as in production, on a broker of the machine: the one that
KAFKA_BOOTSTRAP_SERVERS names, else Apache Kafka as the tests start it. Measured are

    bare loop           benchmarks/_bare.py: calls the five node functions by hand and keeps nothing
    tracking=none       `python -m pipeline worker tracking=none`
    tracking=mlflow     the same with a fresh SQLite store; mlflow works in a child process

How: every process runs under benchmarks/_timed.py, which puts the same clock on KSampler's function. They take turns
while the others wait. A round is the same number of seeds for each; a worker gets them as requests sent at once.
- Between: from the end of a call of KSampler to the beginning of the next one, within a round. For a worker that is all
  that a request costs its sampler, as everything else goes on beside the sampling.
- Throughput: calls from the end of the first to the end of the last of a round. What goes on beside the sampling takes
  cores from it, so this has all costs. Other work of the machine can only slow a round down, so the best round of each
  is compared with the bare loop's best; the median of the rounds is shown beside it.
- Alone: a request that is sent when the worker is idle, from sending it to having its reply, less the call of KSampler.
All must give the same latents, and the output says whether they did.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _processes import PATIENCE, ROOT, Loop, Process, Setting, describe_conditions, find_gpu, say
from confluent_kafka import Consumer, Producer

from pipeline.engine.comfyui.locate import find_comfyui
from pipeline.models.tiny import make_tiny_model

sys.path.insert(0, str(ROOT / "tests/service"))
from kafka_broker import find_broker, make_topics

WARM_UPS = 2
MOST_MILLISECONDS, LEAST_SHARE = 30, 0.97


class BareLoop(Loop):
    """The bare loop, seed after seed."""

    def sample(self, seeds: Sequence[int]) -> None:
        """Sample each seed."""
        for seed in seeds:
            self.run(seed)


class Served(Process):
    """A worker, and the client that sends it requests."""

    def __init__(self, folder: Path, setting: Setting, broker: tuple[str, Any], overrides: Sequence[str]):
        self._setting, self.name = setting, f"benchmark-{uuid.uuid4().hex}"
        topics = {name: f"{self.name}-{name}" for name in ("topic", "reply_topic", "dead_letter_topic")}
        servers, kept = broker
        make_topics(servers, list(topics.values()), kept)
        settings = {**topics, "bootstrap_servers": servers, "group_id": self.name, "port": "null"}
        given = [f"worker.{name}={value}" for name, value in settings.items()]
        roots = f"worker.roots=[{setting.fixture}]"
        super().__init__(folder, ["-m", "pipeline", "worker", *given, roots, *overrides])
        self._topic = topics["topic"]
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
        self._replies = Consumer(
            {"bootstrap.servers": servers, "group.id": f"{self.name}-caller", "auto.offset.reset": "earliest"}
        )
        self._replies.subscribe([topics["reply_topic"]])

    def __exit__(self, *error: object) -> None:
        self._replies.close()
        self.popen.terminate()  # it does not read its input
        super().__exit__(*error)

    def sample(self, seeds: Sequence[int]) -> None:
        """Send a request for each seed, all at once, and wait for the replies."""
        files = {"positive_encoding": "positive", "negative_encoding": "negative", "latent_image": "latent"}
        inputs = {name: {"path": str(self._setting.fixture / f"{file}.pt")} for name, file in files.items()}
        for seed in seeds:
            content = {"request_id": f"r-{seed}", **inputs, "seed": seed, "steps": self._setting.steps}
            self._producer.produce(self._topic, json.dumps(content).encode(), partition=0)
        self._producer.flush()
        missing, deadline = {f"r-{seed}" for seed in seeds}, time.monotonic() + PATIENCE
        while missing:
            message = self._replies.poll(0.2)
            if time.monotonic() > deadline or self.popen.poll() is not None:
                raise self.failure()
            if message is not None and not message.error():
                reply = json.loads(message.value() or b"")
                if reply["status"] != "ok":
                    raise RuntimeError(f"a request was refused: {reply['error']}")
                missing.remove(reply["request_id"])


@dataclass
class Subject:
    """Something that samples, and its figures.

    They are in seconds, an entry for each request; `throughput` is in calls per second, an entry for each round.
    """

    name: str
    process: BareLoop | Served
    sampling: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def measure_round(self, seeds: Sequence[int]) -> None:
        """Sample these seeds, one after the other."""
        calls = self._sample(seeds)
        ends = [call["ended"] for call in calls]
        self.between += [
            call["ended"] - call["seconds"] - before for before, call in zip(ends[:-1], calls[1:], strict=True)
        ]
        self.sampling += [call["seconds"] for call in calls]
        self.throughput.append((len(calls) - 1) / (ends[-1] - ends[0]))
        self.digests += [call["digest"] for call in calls]

    def measure_alone(self, seed: int) -> None:
        """Sample one seed, and wait for its result."""
        began = time.perf_counter()
        (call,) = self._sample([seed])
        self.alone.append(time.perf_counter() - began - call["seconds"])

    def _sample(self, seeds: Sequence[int]) -> list[dict[str, Any]]:
        self.process.sample(seeds)
        return self.process.read_clock()[-len(seeds) :]


def measure(subjects: Sequence[Subject], rounds: int, requests: int) -> None:
    """Fill in the figures of all subjects; they take turns."""
    for subject in subjects:  # one by one, because they also start here
        say(f"starting {subject.name}")
        for seed in range(WARM_UPS):
            subject.process.sample([seed])
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        shift = number % len(subjects)
        first = 1000 + number * (requests + 1)
        for subject in [*subjects[shift:], *subjects[:shift]]:
            subject.measure_round(range(first, first + requests))
            subject.measure_alone(first + requests)


def format_table(subjects: Sequence[Subject]) -> str:
    """Return a line for each subject: medians, and the quartiles of those that have goals."""
    bare = subjects[0]
    rows = [["", "KSampler ms", "(least)", "between ms", "(quartiles)", "throughput", "(median)", "alone ms"]]
    for subject in subjects:
        low, middle, high = statistics.quantiles(subject.between, n=4)
        median = statistics.median(subject.throughput) / statistics.median(bare.throughput)
        rows.append(
            [
                subject.name,
                f"{1000 * statistics.median(subject.sampling):.0f}",
                f"({1000 * min(subject.sampling):.0f})",
                f"{1000 * middle:.1f}",
                f"({1000 * low:.1f} to {1000 * high:.1f})",
                f"{find_share(subject, bare):.3f}",
                f"({median:.3f})",
                f"{1000 * statistics.median(subject.alone):.1f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def find_share(subject: Subject, bare: Subject) -> float:
    """Return the throughput of the best round, as a share of the bare loop's."""
    return max(subject.throughput) / max(bare.throughput)


def judge(subjects: Sequence[Subject]) -> list[str]:
    """Return two lines for each worker: its goals, with the figures and whether they are met."""
    lines = []
    for subject in subjects[1:]:
        between = 1000 * (statistics.median(subject.between) - statistics.median(subjects[0].between))
        share = find_share(subject, subjects[0])
        lines += [
            f"  {write_verdict(between <= MOST_MILLISECONDS)}{subject.name}: {between:.1f} ms between two samplings, "
            f"the goal is at most {MOST_MILLISECONDS} ms",
            f"  {write_verdict(share >= LEAST_SHARE)}{subject.name}: {share:.3f} of the bare loop's throughput, "
            f"the goal is at least {LEAST_SHARE}",
        ]
    return lines


def write_verdict(is_met: bool) -> str:
    """Return the verdict on a goal, padded to a fixed width."""
    return "met    " if is_met else "MISSED "


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what a request costs beyond sampling.")
    parser.add_argument("--rounds", type=int, default=6, help="(default 6)")
    parser.add_argument("--requests", type=int, default=10, help="of each in a round (default 10)")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps (default 4)")
    parser.add_argument("--folder", type=Path, help="keep logs and outputs in this folder, which must not exist")
    given = parser.parse_args()
    os.environ["LATENTGRID_SAMPLING"] = "experiment=tiny"
    setting = Setting(find_comfyui(), make_tiny_model(), find_gpu(), given.steps)
    conditions = describe_conditions(setting, f"{given.rounds} rounds of {given.requests} requests")
    print(conditions, end="\n\n", flush=True)
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="latentgrid_service_"))).resolve()
    (folder / "broker").mkdir(parents=True)
    broker = find_broker(folder / "broker")
    try:
        with ExitStack() as stack:
            store = f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"
            bare = [ROOT / "benchmarks/_bare.py", setting.comfyui.path, setting.fixture, str(setting.steps)]
            subjects = [
                Subject("bare loop", BareLoop(folder / "bare", bare)),
                Subject("tracking=none", Served(folder / "none", setting, broker, ["tracking=none"])),
                Subject("tracking=mlflow", Served(folder / "mlflow", setting, broker, [store])),
            ]
            for subject in subjects:
                stack.enter_context(subject.process)
            measure(subjects, given.rounds, given.requests)
    finally:
        if hasattr(broker[1], "stop"):
            broker[1].stop()
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    same = all(sorted(subject.digests) == sorted(subjects[0].digests) for subject in subjects)
    told = "All gave the same latents, bit for bit." if same else "The latents DIFFER: not all did the same work."
    print(format_table(subjects), "", *judge(subjects), told, sep="\n")


if __name__ == "__main__":
    main()
