"""Find out what is wrong with the settings of the worker, before ComfyUI starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from confluent_kafka import Consumer, KafkaException

from pipeline.config.read import WorkerSettings
from pipeline.errors import OutputError, Problem
from pipeline.record.artifacts import open_folder
from pipeline.service.sample_latent import SAMPLER
from pipeline.service.topics import TOPICS

HIGHEST_PORT = 65535


def check_settings(settings: WorkerSettings, outputs: Sequence[str]) -> list[Problem]:
    """Return all problems of the settings, and make the folder of the results.

    `outputs` are the names of the nodes whose latents are stored (`run.outputs`).
    """
    return [*_check_folders(settings), *_check_numbers(settings), *_check_kafka(settings), *_check_outputs(outputs)]


def _check_folders(settings: WorkerSettings) -> Iterator[Problem]:
    where = "worker.roots"
    if not settings.roots:
        yield Problem("required_input_missing", where, "names no folder that inputs may lie in")
    for root in settings.roots:
        if not Path(root).expanduser().is_dir():
            yield Problem("folder_missing", where, f"there is no such folder, got {root!r}")
    try:
        open_folder(Path(settings.output_root).expanduser())
    except OutputError as error:
        yield Problem("folder_not_writable", "worker.output_root", str(error))


def _check_numbers(settings: WorkerSettings) -> Iterator[Problem]:
    for name, least in (("attempts", 1), ("grace_seconds", 0)):
        value = getattr(settings, name)
        if not value >= least:
            yield Problem("value_smaller_than_min", f"worker.{name}", f"must be at least {least}, got {value}")
    if settings.port is not None and not 0 <= settings.port <= HIGHEST_PORT:
        rule = f"must be from 0 to {HIGHEST_PORT}, or null for none"
        yield Problem("value_not_in_range", "worker.port", f"{rule}, got {settings.port}")


def _check_kafka(settings: WorkerSettings) -> Iterator[Problem]:
    for name in ("bootstrap_servers", "group_id", *TOPICS):
        if not getattr(settings, name):
            yield Problem("required_input_missing", f"worker.{name}", "must not be empty")
    topics = [getattr(settings, name) for name in TOPICS]
    if len(set(topics)) < len(topics):
        message = f"must differ from worker.reply_topic and worker.dead_letter_topic, and those too, got {topics}"
        yield Problem("topics_not_different", "worker.topic", message)
    try:
        with contextlib.closing(Consumer({"group.id": settings.group_id or "none", **settings.kafka, "log_level": 0})):
            pass
    except KafkaException as error:
        yield Problem("unknown_setting", "worker.kafka", f"librdkafka does not take it: {error.args[0].str()}")


def _check_outputs(outputs: Sequence[str]) -> Iterator[Problem]:
    if SAMPLER not in outputs:
        yield Problem("required_input_missing", "run.outputs", f"must have {SAMPLER!r}, got {list(outputs)}")
