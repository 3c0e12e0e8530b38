"""The process that writes records to MLflow.

It reads one JSON message per line from its standard input, in order, and answers on its standard output. The messages
are those of `Tracker` and its `RunStore`. The answer to a question repeats the number of the question. If the input
ends while a run is open, the process that ran it has died, and the run is marked KILLED, so that no record says RUNNING
of a run that has ended.

A server may go out of reach at any time. The messages about open runs are then carried out again on a local store, and
`unsent.py` sends these runs to the server later.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from pipeline.base.cache_folder import cache_folder
from pipeline.base.file_hashes import FileHashes
from pipeline.record.writer.finished_runs import FinishedRuns
from pipeline.record.writer.leftovers import Leftovers
from pipeline.record.writer.open_runs import OpenRuns, read_states
from pipeline.record.writer.orphans import forget_writer
from pipeline.record.writer.store import UNSENT, OutOfReach, Store, is_out_of_reach, is_server, open_store
from pipeline.record.writer.unsent import UnsentRuns

ABOUT_A_RUN = {"start", "link", "log", "file", "finish"}
TOLD_AGAIN = {"start", "log", "file"}
TRY_AGAIN = 60.0  # seconds until a server that was out of reach is tried again


class Writer:
    """Carries out the messages in the store that is open, which may be the local one."""

    def __init__(self, say: Callable[[dict[str, Any]], None]):
        """Use `say` to send what no message asked for."""
        self._report = say
        self._hashes = FileHashes(cache_folder())
        self._messages: dict[int, list[tuple[str, dict[str, Any]]]] = {}  # about open runs, in case the server fails
        self._lost: set[int] = set()  # runs that are no longer recorded
        self._unsent: UnsentRuns | None = None

    def handle(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Carry out one message; return the answer, or None if the message has none."""
        content = dict(message)
        do = content.pop("do")
        if content.get("run") in self._lost:
            return None
        if do == "open":
            return self._begin(**content)
        if do == "start" and not self._messages:
            self._return_to_server()
        try:
            answer = self._carry_out(do, content)
        except Exception as error:
            if not (is_server(self._store.uri) and is_out_of_reach(error)):
                if do not in ABOUT_A_RUN:
                    raise
                return self._give_up(content, error)
            self._runs.leave()
            self._leave_server(error)
            if do == "link":  # the run that it takes over is on the server
                return self._give_up(content, error)
            answer = self._carry_out(do, content)
        if do == "finish":
            self._messages.pop(content["run"], None)
        elif do in TOLD_AGAIN:
            self._messages.setdefault(content["run"], []).append((do, content))
        return answer

    def _give_up(self, content: Mapping[str, Any], error: Exception) -> dict[str, Any]:
        """Give up one run, whose messages are ignored from now on. Raises the error of a store that cannot be used."""
        run, text = content["run"], f"{type(error).__name__}: {error}"
        self._lost.add(run)
        self._messages.pop(run, None)
        self._runs.give_up(run, content.get("record"), f"its record could not be written: {text}")
        return {"lost": run, "reason": text}

    def close(self, status: str = "KILLED", error: str = "the process that ran it died without a word") -> None:
        """End the runs that are still open."""
        try:
            self._runs.end_all(status, error)
        except Exception as failure:
            if not (is_server(self._store.uri) and is_out_of_reach(failure)):
                raise
            self._leave_server(failure)
            self._runs.end_all(status, error)

    def do_find(self, wanted: list[list[Any]]) -> dict[str, Any]:
        """Return for each identity (key and files) a finished run, or None."""
        return {"found": [self._finished.find(identity, read_states(files)) for identity, files in wanted]}

    def do_explain(self, name: str, cell: str, facts: dict[str, str], files: dict[str, list[Any]]) -> dict[str, Any]:
        """Return why no recorded run of this cell can be taken over, and how many of this name are too old for it."""
        reasons = self._finished.explain_missing(cell, facts, read_states(files))
        older = 0 if reasons else self._finished.count_older(name)
        return {"explained": {"reasons": reasons, "older": older}}

    def do_recall(self, count: int) -> dict[str, Any]:
        """Return the params and metrics of the latest finished runs."""
        return {"recalled": self._finished.recall(count)}

    def do_list(self, experiment: str, count: int) -> dict[str, Any]:
        """Return the latest runs of an experiment, whatever their status."""
        return {"listed": self._finished.list_runs(experiment, count)}

    def do_survey(self) -> dict[str, Any]:
        """Return what the store should not have, or None if it is out of reach."""
        if self._store.uri != self._uri:
            return {"surveyed": None}
        return {"surveyed": self._leftovers.find()}

    def do_remove(self, orphans: list[str], broken: list[str]) -> dict[str, Any]:
        """Remove leftovers that were found before; return None if the store is out of reach."""
        if self._store.uri != self._uri:
            return {"removed": None}
        return {"removed": self._leftovers.remove(orphans, broken)}

    def do_read(self, run_id: str, folder: str) -> dict[str, Any]:
        """Return what is recorded of a run, with its files in `folder`, or why it cannot be read."""
        try:
            return {"read": self._finished.read(run_id, Path(folder))}
        except Exception as error:  # noqa: BLE001 (an unknown id, or anything that a store raises for a missing file)
            return {"read": {"error": f"{error}"}}

    def do_fetch(self, run_id: str, name: str) -> dict[str, Any]:
        """Return the text of an artifact, or None and the reason why it cannot be read."""
        with tempfile.TemporaryDirectory(prefix="latentgrid-") as folder:
            try:
                path = self._store.client.download_artifacts(run_id, name, folder)
                return {"fetched": [Path(path).read_text(encoding="utf-8"), ""]}
            except Exception as error:  # noqa: BLE001 (a store may raise anything for a missing file)
                return {"fetched": [None, str(error)]}

    def do_list_unsent(self) -> dict[str, Any]:
        """Return the runs in the local store that can be sent to the server, or None if it is out of reach."""
        if self._store.uri != self._uri:
            return {"unsent": None}
        self._unsent = self._unsent or UnsentRuns(self._store.uri)
        return {"unsent": self._unsent.list_runs()}

    def do_send(self, run_id: str) -> dict[str, Any]:
        """Send one of these runs; return its id on the server, or why it could not be sent."""
        assert self._unsent, "its id is known from the list"
        try:
            return {"sent": {"run_id": self._unsent.send(run_id)}}
        except Exception as error:  # noqa: BLE001 (a server, or the way to it, may raise anything)
            return {"sent": {"error": str(error)}}

    def _carry_out(self, do: str, content: dict[str, Any]) -> dict[str, Any] | None:
        action: Callable[..., Any] = getattr(self._runs, do) if do in ABOUT_A_RUN else getattr(self, f"do_{do}")
        answer: dict[str, Any] | None = action(**content)
        return answer

    def _begin(self, uri: str, experiment: str | None, system_metrics: bool) -> dict[str, Any]:
        """Open the store, or the local one if it is a server out of reach."""
        self._uri, self._experiment, self._system_metrics = uri, experiment, system_metrics
        try:
            self._use_store(open_store(uri, experiment))
        except OutOfReach as error:
            self._leave_server(error)
        return {"opened": True}

    def _use_store(self, store: Store) -> None:
        from mlflow.entities import ViewType

        self._store = store
        self._runs = OpenRuns(store, self._hashes, self._system_metrics)
        self._finished = FinishedRuns(store.client, store.experiment_id, self._hashes)
        self._leftovers = Leftovers(store.client, self._finished, ViewType.ALL)

    def _leave_server(self, error: Exception) -> None:
        """Continue with the local store, and carry out the messages about open runs there again."""
        self._report({"out_of_reach": str(error)})
        self._left_at = time.monotonic()
        self._use_store(open_store(UNSENT, self._experiment))
        for do, content in [message for run_messages in self._messages.values() for message in run_messages]:
            self._carry_out(do, content)

    def _return_to_server(self) -> None:
        """Try a server again that has been out of reach for `TRY_AGAIN` seconds."""
        if self._store.uri != self._uri and time.monotonic() - self._left_at > TRY_AGAIN:
            self._left_at = time.monotonic()
            with contextlib.suppress(OutOfReach):
                self._use_store(open_store(self._uri, self._experiment))


def main(messages: TextIO, answers: TextIO) -> None:
    """Carry out messages until they end. After a failure, report it, carry out no more, and raise it again."""

    def say(answer: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the receiver was killed; its messages are carried out nevertheless
            print(json.dumps(answer), file=answers, flush=True)

    writer = Writer(say)
    try:
        for line in messages:
            if not line.endswith("\n"):
                break  # the sender was killed while it wrote this line
            message = json.loads(line)
            number = message.pop("question", None)
            answer = writer.handle(message)
            if answer is not None:
                say(answer if number is None else {**answer, "question": number})
        writer.close()
        forget_writer()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        with contextlib.suppress(Exception):  # it may fail for the same reason
            writer.close("FAILED", f"its record could not be written: {text}")
        say({"error": text})
        raise


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that runs the nodes decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what mlflow and its libraries print must not look like an answer
    main(sys.stdin, answers)
