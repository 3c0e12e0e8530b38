"""Choose where replies go: to the worker's reply topic, or to the topic that a request names in a header."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import replace

from confluent_kafka import Consumer, KafkaException

from pipeline.config.read import WorkerSettings
from pipeline.service.handler import HandedBack
from pipeline.service.messages import RefusedRequest
from pipeline.service.transactions import Outgoing

log = logging.getLogger(__name__)

REPLY_TOPIC = "reply-topic"
"""The header of a request that names the topic for its reply."""
NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
PATIENCE = 5.0
"""Seconds that the broker has to say whether a topic exists."""
ASK_AGAIN = 1.0
"""Seconds before the broker is asked again if it did not say."""

MessageHeaders = Mapping[str, str | bytes | None]


class ReplyTopics:
    """The topics of replies. May be used from several threads.

    It has a client of its own, because calls to a consumer from one thread may wait without end while another thread
    polls it. That client is a consumer, because a producer that asks for a topic creates it if the broker allows that.

    Example:
        topics = ReplyTopics(settings)
        topics.check({"reply-topic": b"replies"}, let_go)
        topics.choose({"reply-topic": b"replies"})  # "replies"
    """

    def __init__(self, settings: WorkerSettings):
        self._default = settings.reply_topic
        self._not_for_replies = (settings.topic, settings.dead_letter_topic)
        self._known_topics = {settings.reply_topic}
        options = {"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.group_id, **settings.kafka}
        self._client = Consumer({**options, "log_level": 0})  # the worker's consumer logs errors of the broker

    def choose(self, headers: MessageHeaders) -> str:
        """Return the topic for the reply to a message: the one it names, if `check` found that, else the worker's."""
        name = _read_name(headers)
        return name if name in self._known_topics else self._default

    def check(self, headers: MessageHeaders, let_go: threading.Event) -> None:
        """Find the topic that a message names, because a reply to a topic that does not exist is never accepted.

        While the broker is out of reach it waits. Raises RefusedRequest if the name is not valid or no topic has it,
        and HandedBack if `let_go` is set meanwhile.
        """
        if headers.get(REPLY_TOPIC) is None:
            return
        name = _read_name(headers)
        if name is None or name in self._not_for_replies:
            raise RefusedRequest(
                f"header {REPLY_TOPIC}: is no name of a topic for replies, got {headers[REPLY_TOPIC]!r}"
            )
        while name not in self._known_topics:
            try:
                topic = self._client.list_topics(name, PATIENCE).topics[name]
            except KafkaException as error:
                log.warning("Kafka: %s", error)
                if let_go.wait(ASK_AGAIN):
                    raise HandedBack from error
                continue
            if topic.error:
                raise RefusedRequest(f"header {REPLY_TOPIC}: {topic.error.str()}, got {name!r}")
            self._known_topics.add(name)

    def redirect(self, reply: Outgoing) -> Outgoing:
        """Return a reply to the worker's own topic, because the named one is gone or must not be written to."""
        if reply.topic == self._default:
            return reply
        log.warning("%s takes no reply, so it goes to %s", reply.topic, self._default)
        self._known_topics.discard(reply.topic)
        return replace(reply, topic=self._default)

    def close(self) -> None:
        """Close the connection to the broker."""
        self._client.close()


def _read_name(headers: MessageHeaders) -> str | None:
    """Return the topic that a request names for its reply, or None if that is not valid or a topic of Kafka itself."""
    value = headers.get(REPLY_TOPIC) or b""
    name = value if isinstance(value, str) else value.decode(errors="replace")
    return name if NAME.fullmatch(name) and name not in (".", "..") and not name.startswith("__") else None
