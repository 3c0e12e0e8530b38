"""A stand-in for ComfyUI's `server` module, so that nodes which talk to the server can be imported and run.

Importing the real module costs about a second and brings a web server that nobody asked for.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from typing import Any


class PromptServer:
    """What ComfyUI's own nodes use of `server.PromptServer.instance`; there is no client to send anything to."""

    instance: PromptServer

    def __init__(self) -> None:
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self.supports: list[str] = []
        self.sockets_metadata: dict[str, Any] = {}

    @functools.cached_property
    def node_replace_manager(self) -> Any:
        """ComfyUI's own, made when a node asks for it: importing it brings aiohttp."""
        return importlib.import_module("app.node_replace_manager").NodeReplaceManager()

    @functools.cached_property
    def routes(self) -> Any:
        """A table for the routes that packs declare when they are imported; nobody serves them."""
        return importlib.import_module("aiohttp.web").RouteTableDef()

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
