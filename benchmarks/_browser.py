"""A headless browser, driven over the DevTools protocol, in which tests and benchmarks look at pages."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

PATIENCE = 300.0  # seconds to wait for an answer of a page


class Page:
    """A page of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket, self._count = socket, 0

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method and wait for its result."""
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=PATIENCE)
            if message.get("id") == self._count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])

    async def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression, awaited. Raises RuntimeError if it throws."""
        result = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:2000])
        return result["result"].get("value")

    async def wait_for(self, script: str, patience: float = 30) -> Any:
        """Wait until a JavaScript expression is true, and return its value. Raises RuntimeError after `patience` s."""
        deadline = time.monotonic() + patience
        while True:
            try:
                value = await self.evaluate(script)
            except RuntimeError as error:  # the page is just being loaded
                value, reason = None, str(error)
            else:
                reason = repr(value)
            if value:
                return value
            if time.monotonic() > deadline:
                raise RuntimeError(f"the page never came to {script}: {reason}")
            await asyncio.sleep(0.2)

    async def go(self, address: str) -> None:
        """Leave for another address."""
        await self.send("Page.navigate", url=address)

    async def resize(self, width: int, height: int) -> None:
        """Set the size of what is visible, in pixels."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def shoot(self, path: Path) -> None:
        """Write a picture of what is visible, a PNG."""
        path.write_bytes(base64.b64decode((await self.send("Page.captureScreenshot"))["data"]))


@contextmanager
def run_browser(command: str, folder: Path, size: str = "1800,900") -> Iterator[int]:
    """Run a headless browser whose profile and log are in `folder`, and yield the port of its DevTools."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--window-size={size}"]
    with (folder / "browser.txt").open("w") as log:
        browser = subprocess.Popen([command, *options, f"--user-data-dir={folder / 'profile'}"], stderr=log, stdout=log)
    try:
        port = folder / "profile" / "DevToolsActivePort"
        deadline = time.monotonic() + PATIENCE
        while not port.is_file() or not port.read_text().strip():
            if browser.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not start:\n{(folder / 'browser.txt').read_text()[-2000:]}")
            time.sleep(0.1)
        yield int(port.read_text().split()[0])
    finally:
        browser.terminate()
        browser.wait(timeout=30)


@asynccontextmanager
async def open_page(port: int, address: str) -> AsyncIterator[Page]:
    """Open a new page at an address, in the browser whose DevTools listen at `port`."""
    async with aiohttp.ClientSession() as client:
        async with client.put(f"http://127.0.0.1:{port}/json/new?{quote(address)}") as response:
            target = await response.json(content_type=None)
        async with client.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Page(socket)
            await page.send("Page.enable")
            yield page
