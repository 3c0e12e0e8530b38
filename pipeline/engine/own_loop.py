"""An event loop that lasts as long as a session, for async nodes of ComfyUI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class OwnLoop:
    """Runs coroutines, one after the other, on one lasting loop: what async nodes make (locks, clients) is bound to it.

    May be used from inside another running loop (a notebook).
    """

    def __init__(self, interrupt: Callable[[], None]):
        """`interrupt` lets what runs end soon; it is called from another thread."""
        self.loop = asyncio.new_event_loop()
        self._interrupt = interrupt

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end. From inside another running loop it runs in a thread of its own."""
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
    """End what a broken run left behind; the tasks of its async nodes would go on in the next run."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
