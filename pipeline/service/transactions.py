"""Send answers in Kafka transactions: both the answer to a message and the message's offset are committed, or neither.

So callers that read only committed messages (the default of librdkafka, not of Java) see each answer once, whatever
dies.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.config.read import WorkerSettings

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that the worker's loop waits for the broker before it polls again."""
LONGEST = 10_000
"""Milliseconds after which the broker ends the transaction of a dead worker; until then readers wait."""
NOT_TAKEN = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
)
"""Errors that concern one message, not the broker or the connection to it."""
GONE = 2000
"""Milliseconds after which an unknown topic is taken for one that does not exist, and not for a new one.

Less than PATIENCE and transaction.timeout.ms, which end a transaction without saying why.
"""
LARGEST = 1 << 21
"""Bytes up to which the broker decides whether a message is too large."""

Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True)
class Outgoing:
    """A message to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


class NotTaken(Exception):
    """The broker does not accept `outgoing`: it is too large, or its topic is gone or must not be written to."""

    def __init__(self, outgoing: Outgoing, reason: KafkaError):
        self.outgoing = outgoing
        self.is_too_large = reason.code() == KafkaError.MSG_SIZE_TOO_LARGE
        super().__init__(f"a message to {outgoing.topic} is not taken: {reason.str()}")


class Transactions:
    """A sender of answers, each together with the offset of its message, which `consumer` has read.

    Example:
        transactions = Transactions(settings, consumer)
        while not transactions.send(message, [Outgoing("replies", b"r-1", b"{}", [])]):
            time.sleep(1)
    """

    def __init__(self, settings: WorkerSettings, consumer: Consumer):
        self._consumer = consumer
        self._options: dict[str, Any] = {
            "bootstrap.servers": settings.bootstrap_servers,
            "transactional.id": f"{settings.group_id}-{uuid.uuid4().hex}",
            "transaction.timeout.ms": LONGEST,
            "message.max.bytes": LARGEST,
            "topic.metadata.propagation.max.ms": GONE,
            **settings.kafka,
            "logger": log,
        }
        self._producer: Producer | None = None
        self._is_open = False
        self._uncertain_place: str | None = None  # a place whose transaction may or may not have been committed

    def open(self) -> None:
        """Connect, and end a transaction that was left open. May be called again. Raises KafkaException."""
        if self._is_open:
            return
        if self._producer is None:
            self._producer = Producer(self._options)
        self._producer.init_transactions(PATIENCE)
        self._is_open = True

    def send(self, message: Message, outgoing: Sequence[Outgoing]) -> bool:
        """Send the answer to a message together with its offset, and return whether that is done.

        If it is not done, it may be tried again. Raises NotTaken for a message that the broker does not accept.
        """
        place = find_place(message, 1)
        failed: list[NotTaken] = []
        try:
            self.open()
            if self._uncertain_place != str(place) or not self._is_committed(place):
                self._uncertain_place = str(place)
                self._commit(place, outgoing, failed)
        except (KafkaException, BufferError, TimeoutError) as error:
            log.error("a reply is not sent yet: %s", error or "the broker does not answer")
            # A new producer with the same transactional.id ends the open transaction.
            self._producer, self._is_open = None, False
            reason = error.args[0] if isinstance(error, KafkaException) else None
            if reason and reason.code() in NOT_TAKEN:  # for a forbidden topic `on_delivery` is not called
                failed += [NotTaken(one, reason) for one in outgoing]
            if failed:
                raise failed[0] from error
            return False
        self._uncertain_place = None
        return True

    def _commit(self, place: TopicPartition, outgoing: Sequence[Outgoing], failed: list[NotTaken]) -> None:
        """Run the transaction in a thread, and wait PATIENCE seconds for it at most.

        librdkafka itself waits without end for a coordinator that was restarted (its issues 5456 and 5511).
        """
        assert self._producer
        done: Future[None] = Future()
        arguments = (self._producer, self._consumer.consumer_group_metadata(), place, outgoing, failed)

        def run() -> None:
            try:
                _run_transaction(*arguments)
                done.set_result(None)
            except BaseException as error:  # noqa: BLE001 (it is raised where the result is read)
                done.set_exception(error)

        threading.Thread(target=run, name="latentgrid-transaction", daemon=True).start()
        done.result(PATIENCE)

    def _is_committed(self, place: TopicPartition) -> bool:
        """Return whether an uncertain transaction was committed after all: then the group has its offset."""
        (committed,) = self._consumer.committed([place], PATIENCE)
        if committed.error:
            raise KafkaException(committed.error)
        return committed.offset >= place.offset


def _run_transaction(
    producer: Producer, group: object, place: TopicPartition, outgoing: Sequence[Outgoing], failed: list[NotTaken]
) -> None:
    """Run a whole transaction, and append messages that the broker does not accept to `failed`.

    `group` is the consumer's `consumer_group_metadata()`: a consumer is for one thread only.
    """
    producer.begin_transaction()
    for one in outgoing:

        def note_failure(error: KafkaError | None, _: Message | None, one: Outgoing = one) -> None:
            if error and error.code() in NOT_TAKEN:
                failed.append(NotTaken(one, error))

        try:
            producer.produce(one.topic, one.value, one.key, headers=one.headers, on_delivery=note_failure)
        except KafkaException as error:
            note_failure(error.args[0], None)
            raise
    producer.send_offsets_to_transaction([place], group, PATIENCE)
    producer.commit_transaction(PATIENCE)


def find_place(message: Message, ahead: int = 0) -> TopicPartition:
    """Return the place of a message, or the place `ahead` messages after it."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None, "it came from a broker"
    return TopicPartition(topic, partition, offset + ahead)
