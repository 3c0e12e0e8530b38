"""How the worker is: /healthz, /readyz and /metrics on the loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app


class Health:
    """What the worker tells of itself; on a port, once it was taken by `bind`, from `serve` on."""

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
        """Whether requests are answered at all: not before all is found that it takes, nor at the end."""
        self._ready = ready

    def set_trouble(self, trouble: Hashable, is_there: bool) -> None:
        """Whether there is something, by any name of its own, that keeps requests from being answered for a while."""
        if is_there:
            self._troubles.add(trouble)
        else:
            self._troubles.discard(trouble)

    def begin(self) -> None:
        """A request was taken."""
        self._in_hand.inc()

    def end(self, status: str, seconds: float) -> None:
        """A request was answered, refused or handed back."""
        self._in_hand.dec()
        self._requests.labels(status).inc()
        self._seconds.observe(seconds)

    def bind(self, port: int) -> int:
        """Take a port of the loopback (0: any that is free); which one. Raises OSError."""
        self._server = make_server("127.0.0.1", port, self._answer, _Server, _Quiet)
        return int(self._server.server_port)

    def serve(self) -> None:
        """Answer on the port from now on."""
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
        """A connection that was cut, or silent for too long, needs no traceback in the log."""


class _Quiet(WSGIRequestHandler):
    timeout = 5  # seconds; a connection on which nothing is asked ends

    def log_message(self, *args: Any) -> None:
        """Probes come every few seconds; the log is for requests."""
