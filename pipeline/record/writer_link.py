"""The connection to the process that writes to MLflow, which outlives the death of one such process.

What was told of a run is kept until the run is confirmed, and told again to the next process if this one dies. A run is
the same for both by its record id, so it is completed and not doubled.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.base.waiting import Waiting
from pipeline.errors import TrackingError, shorten_list
from pipeline.record.writer.store import UNSENT, is_server
from pipeline.record.writer_process import WriterProcess

log = logging.getLogger(__name__)

MOST_DEATHS = 3  # in a row, without a run that became whole in between
CLOSED = "the connection was closed"
NAMED = 5  # runs in a message
ADVICE = (
    "It goes on by itself when the machine is less busy, or when another process lets go of the store "
    "(`fuser` names those that have its file open). To run without a record: tracking=none"
)


@dataclass(frozen=True)
class LostRun:
    """A run that MLflow did not take."""

    name: str
    parent: int | None
    reason: str


class WriterLink:
    """Tells one writer after the other. `finished` has the answers of runs that are whole, `lost` those that cannot be,
    both by number. `failed` says why nothing can be written any more; empty if it can.

    One thread tells; others may wait. Nothing but `ask` and `check` raises TrackingError.
    """

    def __init__(self, uri: str, opening: Mapping[str, Any]):
        """`opening` is the first message to each writer."""
        self.finished: dict[int, dict[str, Any]] = {}
        self.lost: dict[int, LostRun] = {}
        self.failed = ""
        self._uri = uri
        self._opening = dict(opening)
        self._told: list[dict[str, Any]] = []  # of runs that are not whole, in the order of telling
        self._is_open = False
        self._deaths = 0
        self._questions = itertools.count(1)
        self._telling = threading.Lock()  # never wait for the other one while holding this
        self._reading = threading.RLock()  # or one thread would take what another waits for
        self._writer = WriterProcess()
        self._writer.send(self._opening)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Tell something about the run of number `run`. What is told of a lost run goes nowhere."""
        waiting = Waiting()
        with self._telling:
            if self.failed or message["run"] in self.lost:
                return
            self._told.append(dict(message))
            writer = self._writer
            if writer.send(message, lambda: waiting.look(self._describe_wait(), ADVICE)):
                return
        with self._reading:  # its last answers say why it is gone; then the next one has been told this too
            while self._writer is writer and not self.failed:
                self._take(self._receive(waiting))

    def ask(self, message: Mapping[str, Any], expected: str) -> Any:
        """Tell something about no run, and wait for what the answer says is `expected`.

        The answer repeats the number of the question: Ctrl-C may have kept somebody from waiting for an earlier one.
        """
        waiting, asked, number = Waiting(), None, next(self._questions)
        with self._reading:
            while True:
                self._raise_if_failed()
                if asked is not self._writer:
                    asked = self._writer
                    asked.send({**message, "question": number}, lambda: waiting.look(self._describe_wait(), ADVICE))
                answer = self._receive(waiting)
                if answer.get("question") == number:
                    return answer[expected]
                self._take(answer)

    def wait(self, run: int) -> None:
        """Wait until a run that was finished is whole or lost."""
        waiting = Waiting()
        with self._reading:
            while not (self.failed or run in self.finished or run in self.lost):
                self._take(self._receive(waiting))

    def check(self) -> None:
        """Raise TrackingError if nothing can be written. Waits for a server only, until it has let us in."""
        waiting = Waiting()
        if self._reading.acquire(blocking=False):  # else another thread waits for answers, and takes this one too
            try:
                while is_server(self._uri) and not self._is_open and not self.failed:
                    self._take(self._receive(waiting))
                self._take_waiting()
            finally:
                self._reading.release()
        self._raise_if_failed()

    def close(self) -> None:
        """Let the writer write all that it was told and end; wait for that if it is about runs. Idempotent."""
        waiting = Waiting()
        self._writer.close()
        if not (self.finished or self._told):
            return  # it will end by itself once mlflow is imported
        with self._reading:
            while not self.failed:
                self._writer.close()  # it may be another one by now
                self._take(self._receive(waiting))
        if self.failed != CLOSED and self._told:
            log.error("%s", describe_failure(self._uri, self.failed, self.name_unwritten()))

    def name_unwritten(self) -> str:
        """Return the names of the runs whose records are not whole."""
        return name_runs([one["name"] for one in self._told if "name" in one])

    def _receive(self, waiting: Waiting) -> dict[str, Any]:
        while (answer := self._writer.receive()) is None:
            waiting.look(self._describe_wait(), ADVICE)
        return answer

    def _describe_wait(self) -> str:
        runs = len({one["run"] for one in self._told})
        if not self._is_open:
            return f"MLflow to open {self._uri}"
        return f"MLflow to write {runs} run{'s' * (runs != 1)} to {self._uri}" if runs else f"MLflow at {self._uri}"

    def _take_waiting(self) -> None:
        while not self.failed and (answer := self._writer.receive_waiting()):
            self._take(answer)

    def _take(self, answer: Mapping[str, Any]) -> None:
        """Keep what the writer says without being asked, or of a run."""
        if "opened" in answer:
            self._is_open = True
        elif "error" in answer:
            self.failed = answer["error"]
        elif "closed" in answer:
            self.failed = CLOSED
        elif "died" in answer:
            self._replace(answer["died"])
        elif "out_of_reach" in answer:
            log.warning(
                "tracking.uri: %s is out of reach, so runs are kept in %s; later, send them with: "
                "python -m pipeline sync tracking.uri=%s\n  %s",
                *(self._uri, UNSENT, self._uri, answer["out_of_reach"]),
            )
        elif "question" in answer:
            pass  # nobody waits for it any more
        elif "lost" in answer:
            self._lose(answer["lost"], answer["reason"])
        else:
            self.finished[answer["finished"]] = dict(answer)
            self._deaths = 0
            self._forget(answer["finished"])

    def _lose(self, run: int, reason: str) -> None:
        (begun,) = (one for one in self._told if one["run"] == run and "name" in one)
        self.lost[run] = LostRun(begun["name"], begun["parent"], reason)
        self._forget(run)
        log.error("tracking.uri: the record of %s could not be written: %s", begun["name"] or "the run", reason)

    def _forget(self, run: int) -> None:
        with self._telling:
            self._told = [one for one in self._told if one["run"] != run]

    def _replace(self, reason: str) -> None:
        """Start another writer in place of one that died, and tell it all that the other had not finished."""
        self._writer.close()
        self._deaths += 1
        if self._deaths >= MOST_DEATHS:
            self.failed = f"the process that writes to it ended {self._deaths} times, with {reason}"
            return
        log.warning(
            "the process that writes to MLflow ended with %s\nAnother one writes what it had not finished", reason
        )
        with self._telling:
            self._is_open = False
            self._writer = WriterProcess()
            for message in [self._opening, *self._told]:
                self._writer.send({**message, "again": True} if "record" in message else message)

    def _raise_if_failed(self) -> None:
        if self.failed:
            raise TrackingError(describe_failure(self._uri, self.failed, self.name_unwritten()))


def describe_failure(uri: str, reason: str, unwritten: str) -> str:
    """Return what a person is told when nothing can be written to a store."""
    lost = f"\nNot recorded: {unwritten}" if unwritten else ""
    return f"tracking.uri: MLflow at {uri!r} failed: {reason}{lost}\nCheck tracking.uri, or run without: tracking=none"


def name_runs(names: list[str]) -> str:
    """Return the names of a few runs, and how many more there are."""
    return shorten_list([name or "a run without a name" for name in names], NAMED)
