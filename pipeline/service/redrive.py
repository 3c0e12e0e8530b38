"""Redrive dead letters: send their original bytes to the topic of requests again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.config.read import WorkerSettings
from pipeline.errors import ConfigError, Problem
from pipeline.service.topics import check_topics
from pipeline.service.transactions import PATIENCE, NotTaken, Outgoing, Transactions
from pipeline.service.worker import ORIGIN, REASONS, RESEND, read_headers

QUIET = 10.0
"""Seconds without an answer of the broker after which no letters are taken to be left."""


def redrive(settings: WorkerSettings, limit: int | None = None) -> tuple[int, int]:
    """Send the dead letters that were not redriven yet, at most `limit`, to `settings.topic`, each once.

    Return how many were sent, and how many are left because they have no bytes.

    A letter that is refused again meanwhile, and so comes back, is left for the next call. While the broker accepts
    none, it tries again. Raises ConfigError if the broker or a topic is missing, and KafkaException for other errors of
    the broker.
    """
    common = {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}
    options = {"enable.auto.commit": False, "auto.offset.reset": "earliest", "enable.partition.eof": True}
    consumer = Consumer({"group.id": f"{settings.group_id}-redrive", **options, **common})
    transactions = Transactions(settings, consumer)
    ends: dict[int, int] = {}  # offset of the end of each partition when it was first assigned
    unfinished: set[int] = set()  # partitions that have letters before that end
    is_assigned = False

    def note_ends(consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        nonlocal is_assigned
        is_assigned = True
        for one in partitions:
            _, end = consumer.get_watermark_offsets(one, PATIENCE)
            ends.setdefault(one.partition, end)
        unfinished.update(one.partition for one in partitions)

    sent = empty = 0
    try:
        check_topics(consumer, settings, ("topic", "dead_letter_topic"), PATIENCE)
        consumer.subscribe(
            [settings.dead_letter_topic],
            on_assign=note_ends,
            on_revoke=lambda _, partitions: unfinished.difference_update(one.partition for one in partitions),
        )
        while (unfinished or not is_assigned) and (limit is None or sent < limit):
            message = consumer.poll(QUIET)
            if message is None:
                break
            error, partition, offset = message.error(), message.partition(), message.offset()
            assert partition is not None
            if error and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if error or (offset or 0) >= ends[partition]:
                unfinished.discard(partition)
            elif message.value() is None:
                empty += 1
            elif partition in unfinished:
                headers = [(name, value) for name, value in read_headers(message) if name not in (ORIGIN, REASONS)]
                request = Outgoing(settings.topic, message.key(), message.value(), headers)
                while not _send(transactions, message, request):
                    time.sleep(RESEND)
                sent += 1
    finally:
        consumer.close()
    return sent, empty


def _send(transactions: Transactions, letter: Message, request: Outgoing) -> bool:
    try:
        return transactions.send(letter, [request])
    except NotTaken as error:
        raise ConfigError([Problem("topic_not_usable", "worker.topic", str(error))]) from error
