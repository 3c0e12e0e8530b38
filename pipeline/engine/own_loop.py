"""An event loop that lasts as long as a session, for ComfyUI's async nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class OwnLoop:
    """One lasting event loop that runs coroutines one after the other.

    It must last because async nodes make objects (locks, clients) that are bound to it. It may be used inside another
    running loop (a notebook).
    """

    def __init__(self, interrupt: Callable[[], None]):
        """`interrupt` makes the running coroutine end soon; it is called from another thread."""
        self.loop = asyncio.new_event_loop()
        self._interrupt = interrupt

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return its result. Inside another running loop it gets a thread of its own."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._run(coroutine)
        with ThreadPoolExecutor(1, "latentgrid-session") as thread:
            future = thread.submit(self._run, coroutine)
            try:
                return future.result()
            except KeyboardInterrupt:
                self._interrupt()  # the nodes stop at their next progress call
                raise

    def close(self) -> None:
        """Close the loop."""
        self.loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return self.loop.run_until_complete(coroutine)
        except BaseException:
            self.loop.run_until_complete(_cancel_tasks())
            raise


async def _cancel_tasks() -> None:
    """Cancel the tasks that a failed run left behind, because async nodes would continue in the next run."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
