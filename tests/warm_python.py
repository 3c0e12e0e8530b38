"""A Python that has the slow imports behind it: what starts it gets a fork of a process in which they are done.

In tests `sys.executable` is an executable that asks the server below for a fork. Processes that a test starts by it,
`run.py` and `python -m pipeline` among them, and those that they start themselves, such as the writer to MLflow,
otherwise spend most of their time on importing torch, MLflow and what ComfyUI needs. With options (`-X importtime`) and
with inherited file descriptors it is an ordinary Python.

Signals that can be caught are passed on, and the process ends as its fork does; if it is killed, so is the fork. Tests
of what cannot be passed on (the process tree, SIGSTOP, what is imported, what SIGKILL leaves) start `PYTHON`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

PYTHON = sys.executable
"""The interpreter itself."""

PRELOADED = (
    "torch",
    "torchvision",
    "torchaudio",
    "torchsde",
    "aiohttp",
    "alembic.command",
    "alembic.config",
    "antlr4",
    "av",
    "comfy_kitchen",
    "confluent_kafka",
    "dotenv",
    "einops",
    "hydra",
    "hydra._internal.core_plugins",
    "hydra._internal.hydra",
    "hydra._internal.logging_config",
    "hydra.core.override_parser.overrides_parser",
    "kornia",
    "mlflow",
    "mlflow.data.meta_dataset",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.tracking",
    "numpy",
    "omegaconf",
    "PIL.ImageSequence",
    "PIL.ImageChops",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "platformdirs",
    "prometheus_client",
    "psutil",
    "pydantic",
    "pydantic_settings",
    "safetensors.torch",
    "scipy.integrate",
    "scipy.interpolate",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.stats",
    "spandrel",
    "sqlalchemy",
    "sqlalchemy.dialects.sqlite",
    "tokenizers",
    "transformers",
    "transformers.models.bert.tokenization_bert",
    "transformers.models.byt5.tokenization_byt5",
    "transformers.models.clip.tokenization_clip",
    "transformers.models.llama.tokenization_llama",
    "transformers.models.qwen2.tokenization_qwen2",
    "transformers.models.t5.tokenization_t5",
)
"""Third-party modules only: a test may run another copy of pipeline/ or of ComfyUI."""

SHIM = """#!{python} -IS
import fcntl, json, os, signal, socket, struct, subprocess, sys, time
PYTHON, SERVER, ADDRESS, OWNER = {python!r}, {server!r}, {address!r}, {owner!r}
words = sys.argv[1:]

def is_open(number):
    try:
        return bool(os.fstat(number))
    except OSError:
        return False

inherited = [number for number in map(int, os.listdir("/proc/self/fd")) if number > 2 and is_open(number)]
if inherited or not words or words[0].startswith("-") and words[0] not in ("-m", "-c"):
    os.execv(PYTHON, [PYTHON, *words])
link = socket.socket(socket.AF_UNIX)

def connect():
    try:
        link.connect(ADDRESS)
        return True
    except OSError:
        return False

if not connect():
    with open(ADDRESS + ".lock", "w") as lock, open(ADDRESS + ".log", "a") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not connect():
            pipes = dict(stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            server = subprocess.Popen([PYTHON, SERVER, ADDRESS, OWNER], start_new_session=True, cwd="/", **pipes)
            while not connect():
                time.sleep(0.05)
                if server.poll() is not None:
                    sys.exit(open(ADDRESS + ".log").read())
caught = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
ignored = [one for one in caught if signal.getsignal(one) == signal.SIG_IGN]
signal.pthread_sigmask(signal.SIG_BLOCK, caught)
request = json.dumps([words, os.getcwd(), dict(os.environ), sys.argv[0], ignored]).encode()
socket.send_fds(link, [struct.pack("<Q", len(request))], [0, 1, 2])
link.sendall(request)
(pid,) = struct.unpack("<q", link.recv(8, socket.MSG_WAITALL))
for one in caught:
    if one not in ignored:
        signal.signal(one, lambda number, frame: os.kill(pid, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, caught)
(status,) = struct.unpack("<q", link.recv(8, socket.MSG_WAITALL))
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def make_warm_python(folder: Path) -> str:
    """Write the executable into a folder and return its path; its server ends with this process."""
    if not sys.platform.startswith("linux"):
        return PYTHON
    path = folder / "python"
    path.write_text(SHIM.format(python=PYTHON, server=__file__, address=str(folder / "socket"), owner=str(os.getpid())))
    path.chmod(0o755)
    return str(path)


class Server:
    """Forks itself for each process that is asked for, as long as its owner lives."""

    def __init__(self, address: str, owner: int):
        self._path = sys.path[1:]
        self._owner = os.pidfd_open(owner)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._selector = selectors.DefaultSelector()
        self._forks: dict[int, socket.socket] = {}

    def serve(self) -> tuple[list[str], list[int]] | None:
        """Return in each fork what it is to run and the signals that it ignores, and None at the end of all."""
        self._listener.listen(64)
        self._selector.register(self._owner, selectors.EVENT_READ, None)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == self._owner:
                    for pid in self._forks:
                        kill(pid)
                    return None
                if key.fileobj is self._listener:
                    if (request := self._begin()) is not None:
                        return request
                elif key.data is not None:
                    self._end(key)

    def _begin(self) -> tuple[list[str], list[int]] | None:
        link, _ = self._listener.accept()
        header, pipes, _, _ = socket.recv_fds(link, 8, 3)
        if len(header) < 8:  # it was killed before it had asked
            link.close()
            return None
        content = link.recv(struct.unpack("<Q", header)[0], socket.MSG_WAITALL)
        words, folder, environment, executable, ignored = json.loads(content)
        pid = os.fork()
        if pid:
            for pipe in pipes:
                os.close(pipe)
            link.sendall(struct.pack("<q", pid))
            handle = os.pidfd_open(pid)
            self._forks[pid] = link
            self._selector.register(handle, selectors.EVENT_READ, ("ended", pid, handle))
            self._selector.register(link, selectors.EVENT_READ, ("left", pid, handle))
            return None
        self._selector.close()
        self._listener.close()
        for one in [link, *self._forks.values()]:
            one.close()
        os.setsid()
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
            os.close(pipe)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.executable = executable
        parts = [one for one in environment.get("PYTHONPATH", "").split(os.pathsep) if one]
        sys.path[:] = ["", *parts, *self._path]
        sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
        return words, ignored

    def _end(self, key: selectors.SelectorKey) -> None:
        what, pid, handle = key.data
        if pid not in self._forks:
            return
        if what == "left":  # the executable was killed, perhaps with its process group, and so are its fork and that's
            kill(pid)
        _, status = os.waitpid(pid, 0)
        link = self._forks.pop(pid)
        self._selector.unregister(handle)
        self._selector.unregister(link)
        os.close(handle)
        if what == "ended":
            link.sendall(struct.pack("<q", os.waitstatus_to_exitcode(status)))
        link.close()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # it has not become the leader of a group yet
        os.killpg(pid, signal.SIGKILL)


def run_as_main(words: list[str], ignored: list[int]) -> None:
    """Run a command line as Python runs it."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN if signal.SIGINT in ignored else signal.default_int_handler)
    first, *rest = words
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        scope: dict[str, Any] = sys.modules["__main__"].__dict__
        scope.pop("__file__", None)
        exec(compile(rest[0], "<string>", "exec"), scope)
    else:
        sys.argv = words
        sys.path[0] = str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


def main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    if (request := Server(sys.argv[1], int(sys.argv[2])).serve()) is not None:
        run_as_main(*request)


if __name__ == "__main__":
    main()
