"""Fixtures of the worker's tests: a broker for all of them, and topics of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from service.kafka_broker import Broker, find_broker
from service.serving import Service


@pytest.fixture(scope="session")
def broker(tmp_path_factory) -> Iterator[tuple[str, Any]]:
    """Its bootstrap servers, and the `Broker` if it is one of our own."""
    servers, kept = find_broker(tmp_path_factory.mktemp("broker"))
    yield servers, kept
    if isinstance(kept, Broker):
        kept.stop()


@pytest.fixture
def service(broker, tmp_path, environment) -> Service:
    return Service(broker, tmp_path, environment)
