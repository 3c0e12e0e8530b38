"""Answer requests: checks, sampling and retries. Nothing here depends on Kafka.

Requests may be answered in several threads. They are sampled one after the other, in a separate thread. What comes
before and after (finding the inputs, waiting for the record, hashing the result) goes on beside the sampling of others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from pipeline.base.waiting import Waiting
from pipeline.errors import ConfigError, NodeError, OutputError, RunInterrupted, TrackingError
from pipeline.runs.process import interrupt_run
from pipeline.runs.result import RunResult
from pipeline.service.claims import take_file
from pipeline.service.ledger import Ledger, digest_request
from pipeline.service.messages import (
    DeadlineExceededError,
    Failure,
    KafkaSamplingRequest,
    KafkaSamplingResponse,
    RefusedRequest,
    describe_file,
)
from pipeline.service.sample_latent import INPUTS, SEEDS, SETTINGS, Sampling, prepare_sampling

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first retry, and before any retry at most, while the disk is full or MLflow is out of reach."""
LOOK = 0.05
"""Seconds between two looks at whether a request is still to be answered."""

IN_OTHER_HANDS = "A worker that hangs lets go of it when it is ended"


class HandedBack(Exception):
    """The request must not be answered here any more; another worker will take it."""


class RequestHandler:
    """The handler of requests, which samples with the config of the overrides `base`.

    roots: the folders in which the files of requests may lie.
    attempts: how often a request is tried before it is refused.
    tells: called with an object that identifies the request, and with whether it waits for the disk or for MLflow.

    Example:
        handler = RequestHandler(["experiment=tiny"], [Path("/data")], Ledger(Path("results")), attempts=3)
        response = handler.answer(request, threading.Event())
    """

    def __init__(
        self,
        base: Sequence[str],
        roots: Sequence[Path],
        ledger: Ledger,
        attempts: int,
        tells: Callable[[Hashable, bool], None] = lambda request, waits: None,
    ):
        self._base, self._roots, self._ledger, self._attempts, self._report = base, roots, ledger, attempts, tells
        self._sampler = ThreadPoolExecutor(1, "latentgrid-sampler")

    def close(self) -> None:
        """Wait until no request is sampled any more."""
        self._sampler.shutdown()

    def answer(self, request: KafkaSamplingRequest, let_go: threading.Event) -> KafkaSamplingResponse:
        """Return the answer to a request: the stored one if it came before, else a new one, which is stored.

        While the disk is full or MLflow cannot be reached it waits, because that is no fault of the request; after the
        sampling it waits only for the disk. Raises RefusedRequest for a request that cannot be answered, and HandedBack
        soon after `let_go` is set, at the next step of the sampler.
        """
        pause, name = FIRST_PAUSE, object()  # not its request_id: the same request may be in hand twice
        try:
            while True:
                try:
                    with self._locked(request, let_go):
                        return self._ledger.find_answer(request) or self._sample(request, let_go)
                except (OutputError, TrackingError) as error:
                    log.error("%s; tried again in %.1f s", error, pause, extra={"request_id": request.request_id})
                    self._report(name, True)
                    _wait(pause, request, let_go)
                    pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._report(name, False)

    @contextmanager
    def _locked(self, request: KafkaSamplingRequest, let_go: threading.Event) -> Iterator[None]:
        """Wait until nobody else, here or in another worker, answers the same request, and keep it so."""
        lock, waiting = self._ledger.get_lock(request), Waiting()
        while not lock.is_locked:
            try:
                lock.acquire(timeout=LOOK)
            except Timeout:
                waiting.look(f"{lock.lock_file}: another worker answers the same request", IN_OTHER_HANDS)
                if let_go.is_set():
                    raise HandedBack from None
            except OSError as error:
                raise OutputError(f"{lock.lock_file}: cannot be locked: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()

    def _sample(self, request: KafkaSamplingRequest, let_go: threading.Event) -> KafkaSamplingResponse:
        _raise_if_over(request, let_go)
        inputs = self._take_inputs(request)
        try:
            sampling = prepare_sampling(
                self._base, inputs, _read_settings(request), self._ledger.get_folder(request), True
            )
            while True:
                number, result = self._sampler.submit(self._make_attempt, request, sampling, let_go).result()
                if result:
                    break
        except ConfigError as error:
            raise RefusedRequest(*map(str, error.problems)) from error
        try:
            answer = _make_answer(request, _describe(sampling, result, request))
            self._ledger.keep_answer(request, answer)
            self._ledger.forget_attempts(request)  # the request may come again after its latent was removed
        except OutputError:
            self._ledger.take_back_attempt(request, number)
            raise
        return answer

    def _make_attempt(
        self, request: KafkaSamplingRequest, sampling: Sampling, let_go: threading.Event
    ) -> tuple[int, RunResult | None]:
        """Make one attempt, in the sampling thread; return its number, and its result if no node failed."""
        _raise_if_over(request, let_go)
        number = self._ledger.begin_attempt(request)
        if number > self._attempts:
            self._ledger.forget_attempts(request)  # so that it can be redriven
            raise RefusedRequest(f"sampling: ended the process {self._attempts} times, see the worker's log")
        try:
            with _interrupted_when_over(request, let_go):
                return number, sampling.run()
        except RunInterrupted as error:
            self._ledger.take_back_attempt(request, number)
            _raise_if_over(request, let_go)
            raise HandedBack from error
        except NodeError as error:
            log.error("attempt %d of %d failed: %s", number, self._attempts, error)
            if number < self._attempts:
                return number, None
            self._ledger.forget_attempts(request)
            raise RefusedRequest(f"sampling: {error.reason} ({number} attempts)") from error
        except (ConfigError, OutputError, TrackingError):
            self._ledger.take_back_attempt(request, number)
            raise

    def _take_inputs(self, request: KafkaSamplingRequest) -> dict[str, Any]:
        """Copy the files of a request into its folder, so that they stay what was checked; return the copies."""
        copies: dict[str, Any] = {}
        reasons: list[str] = []
        folder = self._ledger.get_folder(request)
        for name, stem in INPUTS.items():
            try:
                copies[name] = take_file(name, getattr(request, name), self._roots, folder, stem)
            except RefusedRequest as error:
                reasons += error.reasons
        if reasons:
            raise RefusedRequest(*reasons)
        return copies


def refuse(request_id: str, error: RefusedRequest) -> KafkaSamplingResponse:
    """Return the answer to a request that was refused."""
    failure = Failure(type=type(error.__cause__ or error).__name__, message=str(error))
    return KafkaSamplingResponse(request_id=request_id, status="error", error=failure)


def _seconds_left(request: KafkaSamplingRequest) -> float:
    return (request.deadline - datetime.now(UTC)).total_seconds() if request.deadline else float("inf")


def _raise_if_over(request: KafkaSamplingRequest, let_go: threading.Event) -> None:
    if let_go.is_set():
        raise HandedBack
    if request.deadline and _seconds_left(request) <= 0:
        raise DeadlineExceededError(f"deadline: has passed, got {request.deadline.isoformat()}")


def _wait(seconds: float, request: KafkaSamplingRequest, let_go: threading.Event) -> None:
    let_go.wait(max(0.0, min(seconds, _seconds_left(request))))
    _raise_if_over(request, let_go)


@contextmanager
def _interrupted_when_over(request: KafkaSamplingRequest, let_go: threading.Event) -> Iterator[None]:
    """Interrupt the run in the `with` block once `let_go` is set or the deadline passes.

    It is interrupted again and again until it ends, because a run that is just beginning forgets an interrupt.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK):
            if let_go.is_set() or _seconds_left(request) <= 0:
                interrupt_run()

    watcher = threading.Thread(target=watch, name="latentgrid-watcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _read_settings(request: KafkaSamplingRequest) -> dict[str, Any]:
    """Return the settings of a request; its digest gives the seed if it has none.

    A random seed would give another latent if the request is sampled again after a crash.
    """
    derived_seed = int(digest_request(request), 16) % SEEDS
    settings = {name: getattr(request, name) for name in SETTINGS}
    return {**settings, "seed": derived_seed if request.seed is None else request.seed}


def _describe(sampling: Sampling, result: RunResult, request: KafkaSamplingRequest) -> dict[str, Any]:
    """Return what the sampling gave, as `sample_latent` returns it.

    If the record failed after the sampling, or is not complete by the deadline, that is no reason to sample again: the
    latent is on disk, and `metadata.record_error` says why the answer has no run_id.
    """
    try:
        if request.deadline:
            _wait_for_record(result, _seconds_left(request))
        return sampling.describe(result)
    except TrackingError as error:
        log.error("sampled, but not recorded: %s", error)
        description = sampling.describe(dataclasses.replace(result, pending=None))
        description["metadata"]["record_error"] = str(error)
        return description


def _wait_for_record(result: RunResult, seconds: float) -> None:
    """Raise TrackingError if the record is not complete within `seconds`."""

    def wait() -> None:
        with contextlib.suppress(TrackingError):  # `describe` raises it again
            result.wait()

    waiter = threading.Thread(target=wait, name="latentgrid-record", daemon=True)
    waiter.start()
    waiter.join(max(0.0, seconds))
    if waiter.is_alive():
        raise TrackingError("tracking.uri: MLflow had not written the record by the deadline")


def _make_answer(request: KafkaSamplingRequest, description: dict[str, Any]) -> KafkaSamplingResponse:
    return KafkaSamplingResponse(
        request_id=request.request_id,
        status="ok",
        sampled_latent=describe_file(Path(description["sampled_latent_tensor"])),
        sampled_latent_shape=description["sampled_latent_shape"],
        metadata=description["metadata"],
    )
