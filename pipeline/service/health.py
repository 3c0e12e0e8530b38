"""The state of the worker over HTTP: /healthz, /readyz and /metrics on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app


class Health:
    """The state and the metrics of the worker. `bind` takes a port, on which they can be read from `serve` on.

    Example:
        health = Health()
        port = health.bind(0)
        health.serve()
        health.set_ready(True)  # http://127.0.0.1:{port}/readyz now answers 200
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._requests = Counter("latentgrid_requests", "Requests by what came of them", ["status"], registry=registry)
        self._seconds = Histogram(
            "latentgrid_request_seconds",
            "Seconds from taking a request to having its reply",
            registry=registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
        )
        self._in_hand = Gauge("latentgrid_requests_in_hand", "Requests being answered", registry=registry)
        self._metrics: Any = make_wsgi_app(registry)
        self._ready = False
        self._troubles: set[Hashable] = set()
        self._server: WSGIServer | None = None

    def set_ready(self, ready: bool) -> None:
        """Set whether requests are answered at all: not before everything needed is found, nor while it ends."""
        self._ready = ready

    def set_trouble(self, trouble: Hashable, is_there: bool) -> None:
        """Set whether `trouble`, a name for a cause, keeps requests from being answered for a while."""
        if is_there:
            self._troubles.add(trouble)
        else:
            self._troubles.discard(trouble)

    def begin(self) -> None:
        """Count a request that was taken."""
        self._in_hand.inc()

    def end(self, status: str, seconds: float) -> None:
        """Count a request that was answered, refused or handed back after `seconds`."""
        self._in_hand.dec()
        self._requests.labels(status).inc()
        self._seconds.observe(seconds)

    def bind(self, port: int) -> int:
        """Take a port of the loopback interface (0 for any free one), and return it. Raises OSError."""
        self._server = make_server("127.0.0.1", port, self._answer, _Server, _Quiet)
        return int(self._server.server_port)

    def serve(self) -> None:
        """Answer on the port from now on, in a thread."""
        assert self._server, "a port was taken"
        threading.Thread(target=self._server.serve_forever, name="latentgrid-health", daemon=True).start()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        known = {"/healthz": True, "/readyz": self._ready and not self._troubles}
        status = "404 Not Found" if path not in known else "200 OK" if known[path] else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{status.partition(' ')[2].lower()}\n".encode()]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """Log nothing: a connection that was cut, or silent for too long, needs no traceback."""


class _Quiet(WSGIRequestHandler):
    timeout = 5  # seconds until a silent connection is closed

    def log_message(self, *args: Any) -> None:
        """Log nothing: probes come every few seconds, and the log is for requests."""
