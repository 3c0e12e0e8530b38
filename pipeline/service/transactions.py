"""Kafka transactions: the answer to a message and the message's offset, both or neither.

So callers that read committed messages (the default of librdkafka, not of Java) see each answer once, whatever dies.
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
"""Seconds that the loop waits for the broker; it polls in between."""
LONGEST = 10_000
"""Milliseconds after which the broker ends what a dead worker has begun; until then readers wait."""
NOT_TAKEN = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
)
"""Errors that are of one message, not of the broker or the way to it."""
GONE = 2000
"""Milliseconds after which a topic that nobody knows is taken for one that is not there, and not for a new one.

Less than PATIENCE and transaction.timeout.ms, which end a transaction without saying why.
"""
LARGEST = 1 << 21
"""Bytes up to which it is left to the broker whether a message is too large."""

Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True)
class Outgoing:
    """A message to be sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


class NotTaken(Exception):
    """The broker will not take `outgoing` as it is: it is too large, or its topic is gone or not to be written to."""

    def __init__(self, outgoing: Outgoing, reason: KafkaError):
        self.outgoing = outgoing
        self.is_too_large = reason.code() == KafkaError.MSG_SIZE_TOO_LARGE
        super().__init__(f"a message to {outgoing.topic} is not taken: {reason.str()}")


class Transactions:
    """Sends answers, with the offsets of what `consumer` has read."""

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
        self._unsure: str | None = None  # the place whose transaction was not seen to end

    def open(self) -> None:
        """Connect, and settle what was left open. Raises KafkaException, and may be called again."""
        if self._is_open:
            return
        if self._producer is None:
            self._producer = Producer(self._options)
        self._producer.init_transactions(PATIENCE)
        self._is_open = True

    def send(self, message: Message, outgoing: Sequence[Outgoing]) -> bool:
        """Send what answers a message, and its offset; whether that is done. If not, it may be tried again.

        Raises NotTaken for one that the broker does not take.
        """
        place = find_place(message, 1)
        failed: list[NotTaken] = []
        try:
            self.open()
            if self._unsure != str(place) or not self._is_committed(place):
                self._unsure = str(place)
                self._commit(place, outgoing, failed)
        except (KafkaException, BufferError, TimeoutError) as error:
            log.error("a reply is not sent yet: %s", error or "the broker does not answer")
            self._producer, self._is_open = None, False  # the next one of the same transactional.id ends what is open
            reason = error.args[0] if isinstance(error, KafkaException) else None
            if reason and reason.code() in NOT_TAKEN:  # of a topic that may not be written to comes no report
                failed += [NotTaken(one, reason) for one in outgoing]
            if failed:
                raise failed[0] from error
            return False
        self._unsure = None
        return True

    def _commit(self, place: TopicPartition, outgoing: Sequence[Outgoing], failed: list[NotTaken]) -> None:
        """Within a time: librdkafka waits without end for a coordinator that was restarted (its issues 5456, 5511)."""
        assert self._producer
        done: Future[None] = Future()
        work = (self._producer, self._consumer.consumer_group_metadata(), place, outgoing, failed)

        def run() -> None:
            try:
                _run_transaction(*work)
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=run, name="latentgrid-transaction", daemon=True).start()
        done.result(PATIENCE)

    def _is_committed(self, place: TopicPartition) -> bool:
        """Whether the transaction that was not seen to end has ended well: then its offset is the group's."""
        (found,) = self._consumer.committed([place], PATIENCE)
        if found.error:
            raise KafkaException(found.error)
        return found.offset >= place.offset


def _run_transaction(
    producer: Producer, group: object, place: TopicPartition, outgoing: Sequence[Outgoing], failed: list[NotTaken]
) -> None:
    """All of a transaction; what the broker does not take is added to `failed`.

    `group` is the consumer's `consumer_group_metadata()`: a consumer is for one thread only.
    """
    producer.begin_transaction()
    for one in outgoing:

        def note(error: KafkaError | None, _: Message | None, one: Outgoing = one) -> None:
            if error and error.code() in NOT_TAKEN:
                failed.append(NotTaken(one, error))

        try:
            producer.produce(one.topic, one.value, one.key, headers=one.headers, on_delivery=note)
        except KafkaException as error:
            note(error.args[0], None)
            raise
    producer.send_offsets_to_transaction([place], group, PATIENCE)
    producer.commit_transaction(PATIENCE)


def find_place(message: Message, ahead: int = 0) -> TopicPartition:
    """Where a message lies, or the place so many messages after it."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None, "it came from a broker"
    return TopicPartition(topic, partition, offset + ahead)
