"""The process that writes to MLflow, as its parent sees it: a pipe for messages and a queue of answers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

WRITER = "pipeline.record.writer.process"
PIPE_BYTES = 1 << 20


class WriterProcess:
    """Started at once; it lives until `close`. Its death is an answer with `error` too."""

    def __init__(self) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (the writer's, as long as it lives)
        self._process = subprocess.Popen(
            [sys.executable, "-m", WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path.cwd(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *_python_path()])},
            start_new_session=True,  # Ctrl-C in the terminal is for us; the writer ends when we have told it all
        )
        _widen(self._process.stdin)
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._listener = threading.Thread(target=self._listen, name="latentgrid-tracker", daemon=True)
        self._listener.start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. Raises BrokenPipeError or ValueError if the process is gone; the last answer says why."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for the next answer."""
        return self._answers.get()

    def receive_waiting(self) -> dict[str, Any] | None:
        """The next answer if there is one by now."""
        with contextlib.suppress(Empty):
            return self._answers.get_nowait()
        return None

    def put_back(self, answer: Mapping[str, Any]) -> None:
        """Let an answer be received once more."""
        self._answers.put(dict(answer))

    def close(self, wait: bool = True) -> None:
        """Let it finish and end, and `wait` for that. Idempotent."""
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # it failed before it had read all
                self._process.stdin.close()
        if wait:
            self._listener.join()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers, self._log:
            for line in answers:
                self._answers.put(json.loads(line))
            self._process.wait()
            self._answers.put({"error": f"the process that writes to it ended{self._read_log()}"})

    def _read_log(self) -> str:
        self._log.seek(0)
        return "\n" + self._log.read()[-2000:].decode(errors="replace")


def _widen(pipe: Any) -> None:
    """Let a pipe hold what a hundred runs say, so that a slow store holds up no sampling.

    What is in it is written even if this process is killed.
    """
    with contextlib.suppress(ImportError, OSError):  # elsewhere than on Linux, or where the user has too many of them
        from fcntl import F_SETPIPE_SZ, fcntl

        fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)


def _python_path() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH")] if path]
