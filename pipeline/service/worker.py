"""The Kafka worker: take requests from a topic, sample them one at a time, and lose none.

A reply and the offset of its request are committed in one transaction, and only when the result is on disk. So if a
worker dies, another worker gets its requests and finds or samples their results, and each request is answered once.
While one request is sampled, the next one is in hand too: it is checked meanwhile, and sampled as soon as the sampler
is free. While as many requests are in hand as allowed, all partitions are paused but polling goes on, so that the
worker does not lose its partitions however long it samples.
"""

from __future__ import annotations

import contextlib
import json
import logging
import operator
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.config.read import WorkerSettings
from pipeline.errors import ConfigError
from pipeline.service.handler import HandedBack, RequestHandler, refuse
from pipeline.service.health import Health
from pipeline.service.messages import KafkaSamplingResponse, RefusedRequest, find_request_id, read_request
from pipeline.service.reply_topics import MessageHeaders, ReplyTopics
from pipeline.service.topics import TOPICS, check_topics
from pipeline.service.transactions import Headers, NotTaken, Outgoing, Transactions, find_place

log = logging.getLogger(__name__)

WINDOW = 2
"""The most requests in hand: one that is sampled, and one before or after it."""
FULL, BUSY, IDLE = 0.1, 0.01, 0.5
"""Seconds between polls: while no more requests can be taken, while one is in hand, and while none is."""
LOOK, LOOK_AGAIN = 1.0, 5.0
"""Seconds that the broker has to say whether a topic exists, and seconds until it is asked again."""
RESEND = 1.0
"""Seconds before a reply that the broker did not accept is sent again."""

NOT_MENDED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.INVALID_SESSION_TIMEOUT,
    KafkaError.INVALID_GROUP_ID,
)
"""Errors of the broker that do not go away by waiting."""

CORRELATION, LONGEST_CORRELATION = "correlation-id", 1024
"""The header of a request that is copied into its reply, and the most bytes that it may have."""
_call_headers = operator.methodcaller("headers")
ORIGIN, REASONS = "origin", "reasons"
"""Headers of a dead letter: topic/partition/offset of the message, and a JSON list of what is wrong with it."""


@dataclass(eq=False)
class InHand:
    """A message in hand. Setting `let_go` ends the work on it. If it `is_lost`, only another worker may answer it."""

    message: Message
    let_go: threading.Event
    work: Future[list[Outgoing]]
    outgoing: list[Outgoing] | None = None
    send_at: float = 0.0
    is_lost: bool = field(default=False)

    def lose(self) -> None:
        """End the work on the message, because its partition has gone to another worker."""
        self.is_lost = True
        self.let_go.set()

    def is_of(self, partitions: Sequence[TopicPartition]) -> bool:
        """Return whether the message came from one of these partitions."""
        return any((one.topic, one.partition) == (self.message.topic(), self.message.partition()) for one in partitions)


class Worker:
    """The worker. Requests are answered in threads of their own; everything else happens in the thread of `run`."""

    def __init__(self, settings: WorkerSettings, handler: RequestHandler, health: Health):
        common = {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}
        consumer = {
            "group.id": settings.group_id,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
        }
        self._settings, self._handler, self._health = settings, handler, health
        self._consumer = Consumer({**consumer, **common, "logger": log})
        self._transactions = Transactions(settings, self._consumer)
        self._answering = ThreadPoolExecutor(WINDOW, "latentgrid-request")
        self._in_hand: deque[InHand] = deque()
        self._reply_topics = ReplyTopics(settings)
        self._is_ready, self._next_look_at = False, 0.0
        self._stopped_at: float | None = None

    def stop(self) -> None:
        """Take no more requests, and leave the group as soon as those in hand are answered or handed back.

        May be called from a signal handler.
        """
        self._stopped_at = self._stopped_at or time.monotonic()

    def run(self) -> None:
        """Take and answer requests until `stop`. Raises KafkaException for errors that do not go away by waiting."""
        with contextlib.suppress(KafkaException):  # the first reply tries again
            self._transactions.open()
        self._consumer.subscribe(
            [self._settings.topic], on_assign=self._assign_partitions, on_revoke=self._lose, on_lost=self._lose
        )
        try:
            while self._stopped_at is None or self._in_hand:
                self._look_for_topics()
                self._step()
        finally:
            self._health.set_ready(False)
            for job in self._in_hand:
                job.let_go.set()
            self._answering.shutdown()
            self._handler.close()
            self._reply_topics.close()
            self._consumer.close()  # tells the group at once

    @property
    def _is_full(self) -> bool:
        return len(self._in_hand) >= WINDOW or self._stopped_at is not None

    @property
    def _is_grace_over(self) -> bool:
        return self._stopped_at is not None and time.monotonic() - self._stopped_at > self._settings.grace_seconds

    def _look_for_topics(self) -> None:
        """Become ready once all topics exist; until then look again and again, and log which are missing."""
        if self._is_ready or time.monotonic() < self._next_look_at:
            return
        self._next_look_at = time.monotonic() + LOOK_AGAIN
        try:
            check_topics(self._consumer, self._settings, TOPICS, LOOK)
        except ConfigError as error:
            log.error("not ready: %s", "; ".join(map(str, error.problems)))
            return
        self._is_ready = True
        self._health.set_ready(True)

    def _step(self) -> None:
        message = self._poll()
        error = message.error() if message is not None else None
        if error is not None:
            _raise_if_fatal(error)
        elif message is not None and self._is_full:  # it came before its partition was paused
            self._seek(message)
        elif message is not None:
            self._take(message)
        if self._is_grace_over:
            for job in self._in_hand:
                job.let_go.set()
        if self._in_hand:
            self._send_answer(self._in_hand[0])

    def _poll(self) -> Message | None:
        """Return the next message. If none can be taken, first wait for the oldest answer: polls slow sampling down."""
        if self._is_full and self._in_hand and not self._in_hand[0].work.done():
            wait([self._in_hand[0].work], FULL)
            return self._consumer.poll(0)
        return self._consumer.poll(BUSY if self._in_hand else IDLE)

    def _take(self, message: Message) -> None:
        self._health.begin()
        let_go = threading.Event()
        self._in_hand.append(InHand(message, let_go, self._answering.submit(self._answer, message, let_go)))
        if self._is_full:
            self._consumer.pause(self._consumer.assignment())

    def _send_answer(self, job: InHand) -> None:
        """Send the answer to the oldest message in hand, if it is ready: a partition is answered in order."""
        if job.work.done() and job.outgoing is None:
            try:
                job.outgoing = job.work.result()
            except HandedBack:
                self._hand_back(job)
                return
        if job.outgoing is None or time.monotonic() < job.send_at:
            return
        if job.is_lost:
            self._hand_back(job)
            return
        try:
            is_sent = self._transactions.send(job.message, job.outgoing)
        except NotTaken as error:
            job.outgoing = [self._replace_refused(one, error) if one is error.outgoing else one for one in job.outgoing]
            is_sent = False
        self._health.set_trouble(job, not is_sent)
        if is_sent:
            self._remove(job)
        elif self._is_grace_over:
            self._hand_back(job)
        else:
            job.send_at = time.monotonic() + RESEND

    def _hand_back(self, job: InHand) -> None:
        """Leave a message to the worker that has its partition; if it is this one, read from the message on again."""
        log.info("handed back: the request at %s", _locate(job.message))
        self._remove(job)
        if job.is_lost:  # messages of that partition that are in hand now are those of a later assignment
            return
        for later in self._in_hand:
            if later.is_of([find_place(job.message)]):
                later.lose()
        if self._stopped_at is None:
            self._seek(job.message)

    def _remove(self, job: InHand) -> None:
        self._in_hand.remove(job)
        self._health.set_trouble(job, False)
        if not self._is_full:
            self._consumer.resume(self._consumer.assignment())

    def _seek(self, message: Message) -> None:
        try:
            self._consumer.seek(find_place(message))
        except KafkaException as error:  # the partition has gone to another worker
            log.warning("%s cannot be read again: %s", _locate(message), error)

    def _assign_partitions(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Pause or resume new partitions: one that was paused when this worker lost it comes back paused."""
        consumer.incremental_assign(list(partitions))
        if self._is_full:
            consumer.pause(list(partitions))
        else:
            consumer.resume(list(partitions))

    def _lose(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        for job in self._in_hand:
            if job.is_of(partitions):
                job.lose()

    def _answer(self, message: Message, let_go: threading.Event) -> list[Outgoing]:
        """Return what to send for a message. Runs in a thread of its own."""
        headers: Headers = []
        request_id = find_request_id(message.value())
        refused: RefusedRequest | None = None
        response: KafkaSamplingResponse | None = None
        began, status = time.perf_counter(), "handed_back"
        try:
            headers = read_headers(message)
            _check_correlation(dict(headers))
            self._reply_topics.check(dict(headers), let_go)
            response, status = self._handler.answer(read_request(message.value()), let_go), "answered"
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
        outgoing = [self._reply(dict(headers), response)] if response else []
        return [*outgoing, self._make_dead_letter(message, headers, refused)] if refused else outgoing

    def _reply(self, headers: MessageHeaders, response: KafkaSamplingResponse) -> Outgoing:
        correlation = headers.get(CORRELATION)
        reply_headers: Headers = []
        if correlation is not None and len(correlation) <= LONGEST_CORRELATION:
            reply_headers = [(CORRELATION, correlation)]
        topic = self._reply_topics.choose(headers)
        return Outgoing(topic, response.request_id.encode(), response.model_dump_json().encode(), reply_headers)

    def _replace_refused(self, outgoing: Outgoing, error: NotTaken) -> Outgoing:
        """Return what to send instead of a message that was not taken; the same if only somebody else can help."""
        if outgoing.topic != self._settings.dead_letter_topic:
            return outgoing if error.is_too_large else self._reply_topics.redirect(outgoing)
        if not error.is_too_large:
            return outgoing
        if outgoing.value is not None:
            return replace(outgoing, value=None)
        return replace(outgoing, key=None, headers=[one for one in outgoing.headers if one[0] in (ORIGIN, REASONS)])

    def _make_dead_letter(self, message: Message, headers: Headers, refused: RefusedRequest) -> Outgoing:
        """Return the dead letter of a message: its own bytes, and why it could not be answered."""
        added_headers: Headers = [(ORIGIN, _locate(message).encode()), (REASONS, json.dumps(refused.reasons).encode())]
        return Outgoing(self._settings.dead_letter_topic, message.key(), message.value(), [*headers, *added_headers])


def read_headers(message: Message) -> Headers:
    """Return the headers of a message, in order. May be called once for each message.

    Raises RefusedRequest for names that are not UTF-8. For such a name confluent_kafka leaves a hole in its list, which
    ends the process when it is read. A methodcaller notices that the call also failed; the faster call that Python
    compiles `message.headers()` to does not.
    """
    try:
        return list(_call_headers(message) or [])
    except (SystemError, UnicodeError):
        raise RefusedRequest("headers: a name is not UTF-8") from None


def _check_correlation(headers: MessageHeaders) -> None:
    """Raise RefusedRequest if the correlation-id is too long: one that fits a request may not fit its reply."""
    length = len(headers.get(CORRELATION) or b"")
    if length > LONGEST_CORRELATION:
        raise RefusedRequest(f"header {CORRELATION}: must have at most {LONGEST_CORRELATION} bytes, has {length}")


def _locate(message: Message) -> str:
    return f"{message.topic()}/{message.partition()}/{message.offset()}"


def _raise_if_fatal(error: KafkaError) -> None:
    if error.fatal() or error.code() in NOT_MENDED:
        raise KafkaException(error)
    log.warning("Kafka: %s", error)
