"""A stand-in for ComfyUI's `server` module, so that nodes which talk to the server can be imported and run.

Importing the real module takes about a second and brings a web server that is not needed.
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
    """The part of `server.PromptServer.instance` that ComfyUI's own nodes use. No client is connected to it."""

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
        self.address, self.port = "127.0.0.1", 8188  # nothing listens there

    @functools.cached_property
    def node_replace_manager(self) -> Any:
        """ComfyUI's own manager, made when a node asks for it, because importing it brings aiohttp."""
        return importlib.import_module("app.node_replace_manager").NodeReplaceManager()

    @functools.cached_property
    def routes(self) -> Any:
        """A table for the routes that packs declare when they are imported; they are not served."""
        return importlib.import_module("aiohttp.web").RouteTableDef()

    @functools.cached_property
    def app(self) -> Any:
        """A web application for packs to add to; it is not served."""
        return importlib.import_module("aiohttp.web").Application()

    @functools.cached_property
    def prompt_queue(self) -> Any:
        """ComfyUI's own queue, which stays empty."""
        return importlib.import_module("execution").PromptQueue(self)

    def add_on_prompt_handler(self, handler: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Add a handler of a pack, which may change what is to be run: a mapping with `prompt` and `extra_data`."""
        self.on_prompt_handlers.append(handler)

    def trigger_on_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """Pass `json_data` through the handlers in turn and return it. One that fails is skipped, as in ComfyUI."""
        for handler in self.on_prompt_handlers:
            try:
                json_data = handler(json_data)
            except Exception:
                log.warning("a pack's on_prompt handler failed", exc_info=True)
        return json_data

    def queue_updated(self) -> None:
        """Do nothing, because no client is connected."""

    def get_queue_info(self) -> dict[str, Any]:
        """Return the number of prompts that wait, which is always 0, in the form of ComfyUI's /prompt."""
        return {"exec_info": {"queue_remaining": 0}}

    def add_routes(self) -> None:
        """Do nothing, because no routes are served."""

    async def send(self, event: str, data: Any, sid: str | None = None) -> None:
        """Drop a message to the front end."""

    async def send_json(self, event: str, data: Any, sid: str | None = None) -> None:
        """Drop a message to the front end."""

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        """Drop a message to the front end."""

    def send_progress_text(self, text: str, node_id: str, sid: str | None = None) -> None:
        """Drop a progress text to the front end."""


def install_server_stand_in() -> None:
    """Install the stand-in as the module `server`, unless a module of that name is loaded already."""
    if "server" in sys.modules:
        return
    module = types.ModuleType("server")
    PromptServer.instance = PromptServer()
    module.PromptServer = PromptServer  # type: ignore[attr-defined]
    module.BinaryEventTypes = importlib.import_module("protocol").BinaryEventTypes  # type: ignore[attr-defined]
    sys.modules["server"] = module
