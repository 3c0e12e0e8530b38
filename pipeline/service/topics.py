"""Check that the topics that the settings name exist."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException

from pipeline.config.read import WorkerSettings
from pipeline.errors import ConfigError, Problem

TOPICS = ("topic", "reply_topic", "dead_letter_topic")


def check_topics(consumer: Consumer, settings: WorkerSettings, names: Sequence[str], patience: float) -> None:
    """Ask the broker for the topics in the settings `names`, and wait at most `patience` seconds for each.

    Raises ConfigError if the broker does not answer, or if topics do not exist or are forbidden to this user.
    """
    problems = []
    for where in names:
        name = getattr(settings, where)
        try:
            error = consumer.list_topics(name, patience).topics[name].error
        except KafkaException as failure:
            message = f"{settings.bootstrap_servers!r} does not answer: {failure.args[0].str()}"
            raise ConfigError([Problem("broker_out_of_reach", "worker.bootstrap_servers", message)]) from failure
        if error:
            problems.append(Problem("topic_not_usable", f"worker.{where}", f"{error.str()}, got {name!r}"))
    if problems:
        raise ConfigError(problems)
