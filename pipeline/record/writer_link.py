"""The connection to the process that writes to MLflow. It survives the death of such a process.

The messages about a run are retained until the run is confirmed, and sent again to the next process if this one dies.
Both processes identify a run by its record id, so that it is completed and not written twice.
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

MOST_DEATHS = 3  # in a row, without a run that was completed in between
CLOSED = "the connection was closed"
NAMED = 5  # the most runs that a message names
ADVICE = (
    "It goes on by itself when the machine is less busy, or when another process lets go of the store "
    "(`fuser` names those that have its file open). To run without a record: tracking=none"
)


@dataclass(frozen=True)
class LostRun:
    """A run that MLflow did not accept. `parent` is the number of the run above it."""

    name: str
    parent: int | None
    reason: str


class WriterLink:
    """Sends messages to a writer process, and to another one if that dies.

    finished: the answers about runs whose records are complete, by number.
    lost: the runs that cannot be recorded, by number.
    failed: why nothing can be written any more; empty while it can.

    One thread sends messages about runs; others may wait. Only `ask` and `check` raise TrackingError.
    """

    def __init__(self, uri: str, opening: Mapping[str, Any]):
        """Start a writer. `opening` is the first message to each writer."""
        self.finished: dict[int, dict[str, Any]] = {}
        self.lost: dict[int, LostRun] = {}
        self.failed = ""
        self._uri = uri
        self._opening = dict(opening)
        self._unconfirmed: list[dict[str, Any]] = []  # about runs that are not complete, in the order of sending
        self._is_open = False
        self._deaths = 0
        self._questions = itertools.count(1)
        self._sending = threading.Lock()  # while holding this one, never wait for the other
        self._receiving = threading.RLock()  # else one thread would take the answer that another waits for
        self._writer = WriterProcess()
        self._writer.send(self._opening)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message about the run whose number it has as `run`. It is discarded if that run is lost."""
        waiting = Waiting()
        with self._sending:
            if self.failed or message["run"] in self.lost:
                return
            self._unconfirmed.append(dict(message))
            writer = self._writer
            if writer.send(message, lambda: waiting.look(self._describe_wait(), ADVICE)):
                return
        with self._receiving:  # its last answers say why it died; then `_replace` sends this message to the next one
            while self._writer is writer and not self.failed:
                self._handle(self._receive(waiting))

    def ask(self, message: Mapping[str, Any], expected: str) -> Any:
        """Send a message that is about no run, and return what its answer has under the key `expected`.

        The answer repeats the number of the question, because the answer to an earlier question may still arrive if
        Ctrl-C interrupted the wait for it. Raises TrackingError.
        """
        waiting, asked_writer, number = Waiting(), None, next(self._questions)
        with self._receiving:
            while True:
                self._raise_if_failed()
                if asked_writer is not self._writer:
                    asked_writer = self._writer
                    asked_writer.send(
                        {**message, "question": number}, lambda: waiting.look(self._describe_wait(), ADVICE)
                    )
                answer = self._receive(waiting)
                if answer.get("question") == number:
                    return answer[expected]
                self._handle(answer)

    def wait(self, run: int) -> None:
        """Wait until a run that was finished is complete or lost, or nothing can be written any more."""
        waiting = Waiting()
        with self._receiving:
            while not (self.failed or run in self.finished or run in self.lost):
                self._handle(self._receive(waiting))

    def check(self) -> None:
        """Raise TrackingError if nothing can be written any more. If the store is a server, wait until it is open."""
        waiting = Waiting()
        if self._receiving.acquire(blocking=False):  # else another thread handles all answers
            try:
                while is_server(self._uri) and not self._is_open and not self.failed:
                    self._handle(self._receive(waiting))
                self._handle_arrived()
            finally:
                self._receiving.release()
        self._raise_if_failed()

    def close(self) -> None:
        """Let the writer handle all messages and end; wait for that if any is about a run. Idempotent."""
        waiting = Waiting()
        self._writer.close()
        if not (self.finished or self._unconfirmed):
            return  # it will end by itself once mlflow is imported
        with self._receiving:
            while not self.failed:
                self._writer.close()  # it may have been replaced
                self._handle(self._receive(waiting))
        if self.failed != CLOSED and self._unconfirmed:
            log.error("%s", describe_failure(self._uri, self.failed, self.name_unwritten()))

    def name_unwritten(self) -> str:
        """Return the names of the runs whose records are not complete."""
        return name_runs([one["name"] for one in self._unconfirmed if "name" in one])

    def _receive(self, waiting: Waiting) -> dict[str, Any]:
        while (answer := self._writer.receive()) is None:
            waiting.look(self._describe_wait(), ADVICE)
        return answer

    def _describe_wait(self) -> str:
        runs = len({one["run"] for one in self._unconfirmed})
        if not self._is_open:
            return f"MLflow to open {self._uri}"
        return f"MLflow to write {runs} run{'s' * (runs != 1)} to {self._uri}" if runs else f"MLflow at {self._uri}"

    def _handle_arrived(self) -> None:
        while not self.failed and (answer := self._writer.receive_waiting()):
            self._handle(answer)

    def _handle(self, answer: Mapping[str, Any]) -> None:
        """Handle an answer of the writer about itself or about a run."""
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
            pass  # the wait for it was interrupted
        elif "lost" in answer:
            self._mark_lost(answer["lost"], answer["reason"])
        else:
            self.finished[answer["finished"]] = dict(answer)
            self._deaths = 0
            self._drop_messages(answer["finished"])

    def _mark_lost(self, run: int, reason: str) -> None:
        (first_message,) = (one for one in self._unconfirmed if one["run"] == run and "name" in one)
        self.lost[run] = LostRun(first_message["name"], first_message["parent"], reason)
        self._drop_messages(run)
        log.error("tracking.uri: the record of %s could not be written: %s", first_message["name"] or "the run", reason)

    def _drop_messages(self, run: int) -> None:
        with self._sending:
            self._unconfirmed = [one for one in self._unconfirmed if one["run"] != run]

    def _replace(self, reason: str) -> None:
        """Replace a writer that died, and send the next one the messages about all runs that are not complete."""
        self._writer.close()
        self._deaths += 1
        if self._deaths >= MOST_DEATHS:
            self.failed = f"the process that writes to it ended {self._deaths} times, with {reason}"
            return
        log.warning(
            "the process that writes to MLflow ended with %s\nAnother one writes what it had not finished", reason
        )
        with self._sending:
            self._is_open = False
            self._writer = WriterProcess()
            for message in [self._opening, *self._unconfirmed]:
                self._writer.send({**message, "again": True} if "record" in message else message)

    def _raise_if_failed(self) -> None:
        if self.failed:
            raise TrackingError(describe_failure(self._uri, self.failed, self.name_unwritten()))


def describe_failure(uri: str, reason: str, unwritten: str) -> str:
    """Return the message for the user if nothing can be written to a store."""
    lost = f"\nNot recorded: {unwritten}" if unwritten else ""
    return f"tracking.uri: MLflow at {uri!r} failed: {reason}{lost}\nCheck tracking.uri, or run without: tracking=none"


def name_runs(names: list[str]) -> str:
    """Return the names of a few runs, and how many more there are."""
    return shorten_list([name or "a run without a name" for name in names], NAMED)
