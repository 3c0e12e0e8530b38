"""Driving dead letters again: their original bytes go back to the topic of requests."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaException

from pipeline.config import WorkerSettings
from pipeline.service.transactions import Outgoing, Transactions
from pipeline.service.worker import ORIGIN, REASONS, RESEND, read_headers

QUIET = 10.0
"""Seconds without a further dead letter after which there is none left."""


def redrive(settings: WorkerSettings, limit: int | None = None) -> int:
    """Send the dead letters that were not driven yet, at most `limit`, to `settings.topic`, each once; how many.

    While the broker takes none it tries again. Raises KafkaException for what the broker says of the topic.
    """
    common = {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}
    options = {"enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({"group.id": f"{settings.group_id}-redrive", **options, **common})
    transactions = Transactions(settings, consumer)
    consumer.subscribe([settings.dead_letter_topic])
    count = 0
    try:
        while limit is None or count < limit:
            message = consumer.poll(QUIET)
            if message is None:
                break
            if message.error():
                raise KafkaException(message.error())
            headers = [(name, value) for name, value in read_headers(message) if name not in (ORIGIN, REASONS)]
            again = Outgoing(settings.topic, message.key(), message.value(), headers)
            while not transactions.send(message, [again]):
                time.sleep(RESEND)
            count += 1
    finally:
        consumer.close()
    return count
