"""The Kafka worker: takes requests from a topic, one at a time, and loses none.

An offset is stored only when the reply is on the broker, and the reply is sent only when the result is on disk. So a
worker that dies leaves its request to another one, who finds the result or samples it. While a request is in hand all
partitions are paused and polling goes on, so that long sampling costs no partition.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.config import WorkerSettings
from pipeline.service.handler import HandedBack, RequestHandler, refuse
from pipeline.service.health import Health
from pipeline.service.messages import KafkaSamplingResponse, RefusedRequest, find_request_id, read_request

log = logging.getLogger(__name__)

BUSY, IDLE = 0.01, 0.5
"""Seconds that a poll waits: while a request is in hand, and while there is none."""
RESEND = 1.0
"""Seconds before a reply that the broker did not take is sent again."""

TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
NOT_MENDED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.INVALID_SESSION_TIMEOUT,
    KafkaError.INVALID_GROUP_ID,
)
"""Errors of the broker that waiting does not mend."""

REPLY_TOPIC, CORRELATION = "reply-topic", "correlation-id"
"""Headers of a request: where its reply goes, and what is copied into the reply."""
ORIGIN, REASONS = "origin", "reasons"
"""Headers of a dead letter: topic, partition and offset of the message, and a JSON list of what is wrong with it."""

Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True)
class Outgoing:
    """A message to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass
class InHand:
    """The message in hand; `sent` counts what the broker has taken of `outgoing`."""

    message: Message
    work: Future[list[Outgoing]]
    outgoing: list[Outgoing] | None = None
    sent: int = 0
    again: list[tuple[float, Outgoing]] = field(default_factory=list)  # when to send what was not taken


class Worker:
    """Runs until `stop`. The sampling is in a thread of its own, all else in that of `run`."""

    def __init__(self, settings: WorkerSettings, handler: RequestHandler, health: Health):
        common = {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}
        consumer = {
            "group.id": settings.group_id,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
        }
        self._settings, self._handler, self._health = settings, handler, health
        self._consumer = Consumer({**consumer, **common, "logger": log})
        self._producer = Producer({"enable.idempotence": True, "linger.ms": 1, **common, "logger": log})
        self._sampler = ThreadPoolExecutor(1, "latentgrid-sampler")
        self._in_hand: InHand | None = None
        self._stopped: float | None = None

    def stop(self) -> None:
        """Take no more requests, and leave the group as soon as the one in hand is answered or handed back.

        May be called from a signal handler.
        """
        self._stopped = self._stopped or time.monotonic()

    def run(self) -> None:
        """Take requests until `stop`. Raises KafkaException for what cannot be mended by waiting."""
        self._consumer.subscribe([self._settings.topic], on_assign=self._hold_new_partitions)
        self._health.set_ready(True)
        try:
            while self._stopped is None or self._in_hand:
                self._step()
        finally:
            self._health.set_ready(False)
            self._handler.stop()
            self._sampler.shutdown()
            self._consumer.close()  # commits what is stored, and tells the group at once

    def _step(self) -> None:
        message = self._consumer.poll(BUSY if self._in_hand else IDLE)
        self._producer.poll(0)
        error = message.error() if message is not None else None
        if error is not None:
            _raise_if_fatal(error)
        elif message is not None and self._in_hand is None and self._stopped is None:
            self._take(message)
        elif message is not None:  # it came before its partition was paused
            self._consumer.seek(_find_place(message))
        if self._in_hand:
            self._go_on(self._in_hand)

    def _take(self, message: Message) -> None:
        self._consumer.pause(self._consumer.assignment())
        self._health.begin()
        self._in_hand = InHand(message, self._sampler.submit(self._answer, message))

    def _go_on(self, job: InHand) -> None:
        if self._stopped and time.monotonic() - self._stopped > self._settings.grace_seconds and not job.work.done():
            self._handler.stop()
        if job.outgoing is None and job.work.done():
            try:
                job.outgoing = job.work.result()
            except HandedBack:
                log.info("handed back: the request at %s", _locate(job.message))
                self._in_hand = None  # its offset is not stored, so another worker gets it
                return
            for one in job.outgoing:
                self._send(job, one)
        now = time.monotonic()
        due = [one for when, one in job.again if when <= now]
        job.again = [(when, one) for when, one in job.again if when > now]
        for one in due:
            self._send(job, one)
        if job.outgoing is not None and job.sent == len(job.outgoing):
            self._finish(job)

    def _send(self, job: InHand, one: Outgoing) -> None:
        def note(error: KafkaError | None, _: Message) -> None:
            if error is None:
                job.sent += 1
            else:
                self._send_later(job, one, error)

        try:
            self._producer.produce(one.topic, one.value, one.key, headers=one.headers, on_delivery=note)
        except (KafkaException, BufferError) as error:
            self._send_later(job, one, error)

    def _send_later(self, job: InHand, one: Outgoing, error: object) -> None:
        log.error("%s did not take a message, it is sent again: %s", one.topic, error)
        job.again.append((time.monotonic() + RESEND, one))

    def _finish(self, job: InHand) -> None:
        try:
            self._consumer.store_offsets(job.message)
        except KafkaException as error:  # the partition is another worker's by now, who will find the answer
            log.warning("the offset of %s cannot be stored: %s", _locate(job.message), error)
        self._in_hand = None
        self._consumer.resume(self._consumer.assignment())

    def _hold_new_partitions(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        consumer.incremental_assign(list(partitions))
        if self._in_hand:
            consumer.pause(list(partitions))

    def _answer(self, message: Message) -> list[Outgoing]:
        """What to send for a message; runs in the sampling thread."""
        headers = dict(read_headers(message))
        request_id = find_request_id(message.value())
        refused: RefusedRequest | None = None
        response: KafkaSamplingResponse | None = None
        began, status = time.perf_counter(), "handed_back"
        try:
            _check_reply_topic(headers)
            response, status = self._handler.answer(read_request(message.value())), "answered"
        except RefusedRequest as error:
            refused, status = error, "refused"
        except HandedBack:
            raise
        except Exception as error:
            log.exception("this is a fault of latentgrid, please report it", extra={"request_id": request_id})
            refused, status = RefusedRequest(f"worker: {type(error).__name__}: {error}"), "refused"
        finally:
            self._health.end(status, time.perf_counter() - began)
            log.info("%s: the request at %s", status, _locate(message), extra={"request_id": request_id})
        if refused and request_id:
            response = refuse(request_id, refused)
        outgoing = [self._reply(headers, response)] if response else []
        return [*outgoing, self._bury(message, refused)] if refused else outgoing

    def _reply(self, headers: Mapping[str, str | bytes | None], response: KafkaSamplingResponse) -> Outgoing:
        kept: Headers = [(CORRELATION, headers[CORRELATION])] if headers.get(CORRELATION) is not None else []
        topic = _find_reply_topic(headers) or self._settings.reply_topic
        return Outgoing(topic, response.request_id.encode(), response.model_dump_json().encode(), kept)

    def _bury(self, message: Message, refused: RefusedRequest) -> Outgoing:
        """The dead letter of a message: its own bytes, and why it could not be answered."""
        about: Headers = [(ORIGIN, _locate(message).encode()), (REASONS, json.dumps(refused.reasons).encode())]
        return Outgoing(
            self._settings.dead_letter_topic, message.key(), message.value(), [*read_headers(message), *about]
        )


def _check_reply_topic(headers: Mapping[str, str | bytes | None]) -> None:
    if headers.get(REPLY_TOPIC) is not None and _find_reply_topic(headers) is None:
        raise RefusedRequest(f"header {REPLY_TOPIC}: is no name of a topic, got {headers[REPLY_TOPIC]!r}")


def _find_reply_topic(headers: Mapping[str, str | bytes | None]) -> str | None:
    """The topic that a request names for its reply, if it is the name of a topic."""
    value = headers.get(REPLY_TOPIC) or b""
    name = value if isinstance(value, str) else value.decode(errors="replace")
    return name if TOPIC.fullmatch(name) and name not in (".", "..") else None


def read_headers(message: Message) -> Headers:
    """The headers of a message, in order."""
    return [(name, value) for name, value in message.headers() or []]  # type: ignore[str-unpack]


def _find_place(message: Message) -> TopicPartition:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None, "it came from a broker"
    return TopicPartition(topic, partition, offset)


def _locate(message: Message) -> str:
    return f"{message.topic()}/{message.partition()}/{message.offset()}"


def _raise_if_fatal(error: KafkaError) -> None:
    if error.fatal() or error.code() in NOT_MENDED:
        raise KafkaException(error)
    log.warning("Kafka: %s", error)
