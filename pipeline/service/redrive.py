"""Driving dead letters again: their original bytes go back to the topic of requests."""

from __future__ import annotations

import logging

from confluent_kafka import Consumer, KafkaException, Producer

from pipeline.config import WorkerSettings
from pipeline.service.worker import ORIGIN, REASONS, read_headers

log = logging.getLogger(__name__)

QUIET = 10.0
"""Seconds without a further dead letter after which there is none left."""


def redrive(settings: WorkerSettings, limit: int | None = None) -> int:
    """Send the dead letters that were not driven yet, at most `limit`, to `settings.topic`; how many.

    A dead letter counts as driven once the broker has its message. Raises KafkaException.
    """
    common = {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}
    options = {"enable.auto.offset.store": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({"group.id": f"{settings.group_id}-redrive", **options, **common})
    producer = Producer({"enable.idempotence": True, **common})
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
            producer.produce(
                settings.topic, message.value(), message.key(), headers=headers, on_delivery=_raise_if_lost
            )
            producer.flush()
            consumer.store_offsets(message)
            count += 1
    finally:
        consumer.close()
    return count


def _raise_if_lost(error: object, _: object) -> None:
    if error:
        raise KafkaException(error)
