"""From a request to its answer: checks, sampling, retries. Knows nothing of Kafka."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, NodeError, OutputError, RunInterrupted, TrackingError
from pipeline.service.claims import find_file
from pipeline.service.ledger import Ledger
from pipeline.service.messages import (
    Failure,
    KafkaSamplingRequest,
    KafkaSamplingResponse,
    RefusedRequest,
    describe_file,
)
from pipeline.service.sample_latent import INPUTS, SETTINGS, sample

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before another try while the disk is full or MLflow cannot be reached."""


class HandedBack(Exception):
    """The worker was told to stop before the request was answered; another worker will take it."""


class RequestHandler:
    """Answers requests one after the other, from the config of the overrides `base`.

    `tells` is called with True when requests can be answered, with False while the disk or the record refuses.
    """

    def __init__(
        self,
        base: Sequence[str],
        roots: Sequence[Path],
        ledger: Ledger,
        attempts: int,
        tells: Callable[[bool], None] = lambda ready: None,
    ):
        self._base, self._roots, self._ledger, self._attempts, self._tells = base, roots, ledger, attempts, tells
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Hand back what is in hand, as soon as the sampler takes notice; from another thread."""
        from pipeline.runner import interrupt_run

        self._stopping.set()
        interrupt_run()

    def answer(self, request: KafkaSamplingRequest) -> KafkaSamplingResponse:
        """The answer to a request: that of before, if it came before, else a new one, which is kept.

        Raises RefusedRequest for a request that cannot be answered, HandedBack after `stop`. While the disk is full or
        MLflow cannot be reached it waits, because that is no fault of the request.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                known = self._ledger.find_answer(request)
                answer = known or self._sample(request)
                self._tells(True)
                return answer
            except (OutputError, TrackingError) as error:
                log.error("%s; tried again in %.1f s", error, pause)
                self._tells(False)
                if self._stopping.wait(pause):
                    raise HandedBack from error
                pause = min(2 * pause, LONGEST_PAUSE)

    def _sample(self, request: KafkaSamplingRequest) -> KafkaSamplingResponse:
        if request.deadline and datetime.now(UTC) > request.deadline:
            raise RefusedRequest(f"deadline: has passed, got {request.deadline.isoformat()}")
        inputs = self._find_inputs(request)
        while True:
            if self._stopping.is_set():
                raise HandedBack
            number = self._ledger.begin_attempt(request)
            if number > self._attempts:
                self._ledger.forget_attempts(request)  # so that it can be driven again
                raise RefusedRequest(f"sampling: ended the process {self._attempts} times, see the worker's log")
            try:
                given = sample(self._base, inputs, _read_settings(request), self._ledger.get_folder(request), True)
            except RunInterrupted as error:
                self._ledger.take_back_attempt(request, number)
                raise HandedBack from error
            except ConfigError as error:
                self._ledger.forget_attempts(request)
                raise RefusedRequest(*map(str, error.problems)) from error
            except NodeError as error:
                log.error("attempt %d of %d failed: %s", number, self._attempts, error)
                if number == self._attempts:
                    self._ledger.forget_attempts(request)
                    raise RefusedRequest(f"sampling: {error.reason} ({number} attempts)") from error
            except (OutputError, TrackingError):
                self._ledger.take_back_attempt(request, number)
                raise
            else:
                answer = _make_answer(request, given)
                self._ledger.keep_answer(request, answer)
                return answer

    def _find_inputs(self, request: KafkaSamplingRequest) -> dict[str, Any]:
        found: dict[str, Any] = {}
        reasons: list[str] = []
        for name in INPUTS:
            try:
                found[name] = find_file(name, getattr(request, name), self._roots)
            except RefusedRequest as error:
                reasons += error.reasons
        if reasons:
            raise RefusedRequest(*reasons)
        return found


def refuse(request_id: str, error: RefusedRequest) -> KafkaSamplingResponse:
    """The answer to a request that was refused."""
    failure = Failure(type=type(error.__cause__ or error).__name__, message=str(error))
    return KafkaSamplingResponse(request_id=request_id, status="error", error=failure)


def _read_settings(request: KafkaSamplingRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in SETTINGS}


def _make_answer(request: KafkaSamplingRequest, given: dict[str, Any]) -> KafkaSamplingResponse:
    return KafkaSamplingResponse(
        request_id=request.request_id,
        status="ok",
        sampled_latent=describe_file(Path(given["sampled_latent_tensor"])),
        sampled_latent_shape=given["sampled_latent_shape"],
        metadata=given["metadata"],
    )
