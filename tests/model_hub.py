"""A stand-in for a model hub: what huggingface_hub asks for, served from memory, with a storage on an address of its
own that the hub redirects to, as the real one does."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from patience import PATIENCE

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]):
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed are part of the tests."""


class Storage(Server):
    """Serves bodies by their sha256. Can end the first answers after some bytes, and wait in the middle of one."""

    def __init__(self) -> None:
        super().__init__(AnswerWithBytes)
        self.bodies: dict[str, bytes] = {}
        self.ends: list[int] = []  # after how many bytes: one entry for each of the first answers
        self.resets = False  # whether these end with a reset instead of a close
        self.ranges: list[str | None] = []  # the Range header of each request
        self.tokens: list[str | None] = []  # its Authorization header
        self.sent = 0
        self.open = threading.Event()  # whether answers go on after their first half
        self.open.set()


class AnswerWithBytes(BaseHTTPRequestHandler):
    server: Storage

    def do_GET(self) -> None:
        body, wanted = self.server.bodies[self.path.strip("/")], self.headers["Range"]
        self.server.ranges.append(wanted)
        self.server.tokens.append(self.headers["Authorization"])
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        end = start + self.server.ends.pop(0) if self.server.ends else len(body)
        middle = (start + end) // 2
        self._send(body[start:middle])
        self.server.open.wait(PATIENCE)
        self._send(body[middle:end])
        if end < len(body):
            if self.server.resets:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    def _send(self, content: bytes) -> None:
        self.wfile.write(content)
        self.wfile.flush()
        self.server.sent += len(content)

    def log_message(self, *args: object) -> None:
        """The output of a test is for its failures."""


class Hub(Server):
    """Answers for files by `REPO/PATH`, or refuses: `refusals` has the status and X-Error-Code of a repository."""

    def __init__(self) -> None:
        super().__init__(AnswerWithMetadata)
        self.storage = Storage()
        self.files: dict[str, str] = {}  # the sha256 of each
        self.refusals: dict[str, tuple[int, str]] = {}

    def add(self, name: str, size: int, seed: int) -> str:
        """Serve random bytes as a file; its sha256."""
        body = random.Random(seed).randbytes(size)
        self.files[name] = hashlib.sha256(body).hexdigest()
        self.storage.bodies[self.files[name]] = body
        return self.files[name]

    def close(self) -> None:
        for server in (self, self.storage):
            server.shutdown()
            server.server_close()


class AnswerWithMetadata(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        repo, _, rest = self.path.strip("/").partition("/resolve/")
        _, _, path = rest.partition("/")
        sha256 = self.server.files.get(f"{repo}/{path}")
        status, code = self.server.refusals.get(repo, (302, "") if sha256 else (404, "EntryNotFound"))
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("X-Error-Code", code)
        if status == 302:
            self.send_header("X-Linked-Etag", f'"{sha256}"')
            self.send_header("X-Linked-Size", str(len(self.server.storage.bodies[str(sha256)])))
            self.send_header("Location", f"{self.server.storage.url}/{sha256}")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args: object) -> None:
        """The output of a test is for its failures."""
