"""The process that writes to MLflow, as its parent sees it: a pipe for messages and a queue of answers."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

WRITER = "pipeline.record.writer.process"
PIPE_BYTES = 1 << 20
LOOK = 1.0  # the seconds after which a wait calls `look` or returns


class WriterProcess:
    """The process that writes. It starts at once and lives until `close`.

    Its end is an answer too: `closed`, or `died` with its status and the end of its log.
    """

    def __init__(self) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (the writer uses it as long as it lives)
        self._process = subprocess.Popen(
            [sys.executable, "-m", WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            errors="replace",  # bytes that are no text would end the listener
            cwd=Path.cwd(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *_python_path()])},
            start_new_session=True,  # Ctrl-C in the terminal must not end the writer before it has written all
        )
        _enlarge_pipe(self._process.stdin)
        self._unwritten = b""  # what Ctrl-C kept from being written; half a message would spoil the next one
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._listener = threading.Thread(target=self._listen, name="latentgrid-tracker", daemon=True)
        self._listener.start()

    def send(self, message: Mapping[str, Any], look: Callable[[], None] = lambda: None) -> bool:
        """Send a message, and call `look` about once a second while the pipe is full.

        Return whether the process was alive to receive it. If it was not, its last answer says why.
        """
        self._unwritten += (json.dumps(message) + "\n").encode()
        return self._write(look)

    def receive(self) -> dict[str, Any] | None:
        """Return the next answer, or None if none came within a second."""
        with contextlib.suppress(Empty):
            return self._answers.get(timeout=LOOK)
        return None

    def receive_waiting(self) -> dict[str, Any] | None:
        """Return the next answer if it has arrived already, else None."""
        with contextlib.suppress(Empty):
            return self._answers.get_nowait()
        return None

    def close(self) -> None:
        """Let the process finish its work and end. Idempotent."""
        self._write(lambda: None)
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # the process ended before it had read all
                self._process.stdin.close()

    def _write(self, look: Callable[[], None]) -> bool:
        assert self._process.stdin is not None
        try:
            pipe = self._process.stdin.fileno()
            os.set_blocking(pipe, False)
            while self._unwritten:
                try:
                    self._unwritten = self._unwritten[os.write(pipe, self._unwritten) :]
                except BlockingIOError:
                    if not select.select([], [pipe], [], LOOK)[1]:
                        look()
        except (BrokenPipeError, ValueError):  # the process ended, or `close` has closed the pipe
            return False
        return True

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers, self._log:
            for line in answers:
                if (answer := _read_answer(line)) is not None:
                    self._answers.put(answer)
            status = self._process.wait()
            self._answers.put({"closed": True} if status == 0 else {"died": f"status {status}{self._read_log()}"})

    def _read_log(self) -> str:
        self._log.seek(0)
        return "\n" + self._log.read()[-2000:].decode(errors="replace")


def _read_answer(line: str) -> dict[str, Any] | None:
    """Return the answer in a line, or None if it has none.

    The process may die in the middle of a line, and a library may print a line of its own.
    """
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _enlarge_pipe(pipe: Any) -> None:
    """Let a pipe hold the messages of about a hundred runs, so that a slow store delays no sampling.

    What is in the pipe is written even if this process is killed.
    """
    with contextlib.suppress(ImportError, OSError):  # not on Linux, or the user has too many large pipes
        from fcntl import F_SETPIPE_SZ, fcntl

        fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)


def _python_path() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH")] if path]
