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
LOOK = 1.0  # seconds from one look at what is waited for to the next


class WriterProcess:
    """Started at once; it lives until `close`. Its end is an answer too: `closed`, or `died` with what it last said."""

    def __init__(self) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (the writer's, as long as it lives)
        self._process = subprocess.Popen(
            [sys.executable, "-m", WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            errors="replace",  # what the listener cannot read would end it
            cwd=Path.cwd(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *_python_path()])},
            start_new_session=True,  # Ctrl-C in the terminal is for us; the writer ends when we have told it all
        )
        _widen(self._process.stdin)
        self._rest = b""  # what Ctrl-C kept from being written; half a message would spoil the next
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._listener = threading.Thread(target=self._listen, name="latentgrid-tracker", daemon=True)
        self._listener.start()

    def send(self, message: Mapping[str, Any], look: Callable[[], None] = lambda: None) -> bool:
        """Send a message, calling `look` about once a second while the pipe is full. Returns whether the process was
        there to get it; if not, the last answer says why."""
        self._rest += (json.dumps(message) + "\n").encode()
        return self._write(look)

    def receive(self) -> dict[str, Any] | None:
        """Return the next answer, None if none came within a second."""
        with contextlib.suppress(Empty):
            return self._answers.get(timeout=LOOK)
        return None

    def receive_waiting(self) -> dict[str, Any] | None:
        """Return the next answer if there is one by now."""
        with contextlib.suppress(Empty):
            return self._answers.get_nowait()
        return None

    def close(self) -> None:
        """Let it finish and end. Idempotent."""
        self._write(lambda: None)
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # it failed before it had read all
                self._process.stdin.close()

    def _write(self, look: Callable[[], None]) -> bool:
        assert self._process.stdin is not None
        try:
            pipe = self._process.stdin.fileno()
            os.set_blocking(pipe, False)
            while self._rest:
                try:
                    self._rest = self._rest[os.write(pipe, self._rest) :]
                except BlockingIOError:
                    if not select.select([], [pipe], [], LOOK)[1]:
                        look()
        except (BrokenPipeError, ValueError):  # it ended, or we have closed the pipe
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
    """Return the answer in a line, None if it has none: the process may die within a line, or a library print one."""
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _widen(pipe: Any) -> None:
    """Let a pipe hold what a hundred runs say, so that a slow store holds up no sampling.

    What is in it is written even if this process is killed.
    """
    with contextlib.suppress(ImportError, OSError):  # elsewhere than on Linux, or where the user has too many of them
        from fcntl import F_SETPIPE_SZ, fcntl

        fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)


def _python_path() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH")] if path]
