"""A stand-in for ComfyUI's `server` module, so that nodes which talk to the server can be imported and run.

Importing the real module costs about a second and brings a web server that nobody asked for.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import sys
import types
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class PromptServer:
    """What ComfyUI's own nodes use of `server.PromptServer.instance`; there is no client to send anything to."""

    instance: PromptServer

    def __init__(self) -> None:
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self.supports: list[str] = ["custom_nodes_from_web"]
        self.sockets: dict[str, Any] = {}
        self.sockets_metadata: dict[str, Any] = {}
        self.on_prompt_handlers: list[Callable[[dict[str, Any]], dict[str, Any]]] = []
        self.number = 0
        self.loop: asyncio.AbstractEventLoop | None = None  # the session's, which the nodes run on
        self.address, self.port = "127.0.0.1", 8188  # where nobody listens

    @functools.cached_property
    def node_replace_manager(self) -> Any:
        """ComfyUI's own, made when a node asks for it: importing it brings aiohttp."""
        return importlib.import_module("app.node_replace_manager").NodeReplaceManager()

    @functools.cached_property
    def routes(self) -> Any:
        """A table for the routes that packs declare when they are imported; nobody serves them."""
        return importlib.import_module("aiohttp.web").RouteTableDef()

    @functools.cached_property
    def app(self) -> Any:
        """A web application for packs to add to; nobody serves it."""
        return importlib.import_module("aiohttp.web").Application()

    @functools.cached_property
    def prompt_queue(self) -> Any:
        """ComfyUI's own queue, which stays empty."""
        return importlib.import_module("execution").PromptQueue(self)

    def add_on_prompt_handler(self, handler: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Let a pack see, and change, what is sent to be run: a mapping with `prompt` and `extra_data`."""
        self.on_prompt_handlers.append(handler)

    def trigger_on_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """Show it to the handlers, one after the other; one that fails is passed over, as in ComfyUI."""
        for handler in self.on_prompt_handlers:
            try:
                json_data = handler(json_data)
            except Exception:
                log.warning("a pack's on_prompt handler failed", exc_info=True)
        return json_data

    def queue_updated(self) -> None:
        """Nobody is told."""

    def get_queue_info(self) -> dict[str, Any]:
        """How many prompts wait: none, ever."""
        return {"exec_info": {"queue_remaining": 0}}

    def add_routes(self) -> None:
        """Nobody serves them."""

    async def send(self, event: str, data: Any, sid: str | None = None) -> None:
        """Drop a message to the front end."""

    async def send_json(self, event: str, data: Any, sid: str | None = None) -> None:
        """Drop a message to the front end."""

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        """Drop a message to the front end."""

    def send_progress_text(self, text: str, node_id: str, sid: str | None = None) -> None:
        """Drop a progress text to the front end."""


def install_server_stand_in() -> None:
    """Put the stand-in where `import server` finds it, unless a `server` is loaded already."""
    if "server" in sys.modules:
        return
    module = types.ModuleType("server")
    PromptServer.instance = PromptServer()
    module.PromptServer = PromptServer  # type: ignore[attr-defined]
    module.BinaryEventTypes = importlib.import_module("protocol").BinaryEventTypes  # type: ignore[attr-defined]
    sys.modules["server"] = module
