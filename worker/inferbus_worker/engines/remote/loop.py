"""The event loop of all remote engines: one thread, which owns their connections and writes what they answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
#: Seconds of the time to stop that the loop has to end its tasks.
_LEAST_TIME: Final = 0.1


class RemoteLoop:
    """The thread `remote-engines`. Its owner, the daemon, starts it before the engines and stops it after them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_running = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._own, name="remote-engines", daemon=True)
            self._thread.start()
            self._is_running.wait()

    def stop(self, timeout: float) -> None:
        """End what runs on the loop, then the thread, within `timeout` seconds. Safe to call twice."""
        loop, stopping, thread = self._loop, self._stopping, self._thread
        if loop is None or stopping is None or thread is None:
            return
        try:
            loop.call_soon_threadsafe(stopping.set)
        except RuntimeError:  # it is closed: this is the second call
            return
        thread.join(max(_LEAST_TIME, timeout))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs from the start to the stop.

        Raises:
            RuntimeError: it was never started.
        """
        if self._loop is None:
            raise RuntimeError("the loop of the remote engines has not been started")
        return self._loop

    @property
    def is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, Result], timeout: float) -> Result:
        """Run `work` on the loop and wait for it, in any thread but the loop's own.

        Raises:
            TimeoutError: it took more than `timeout` seconds, and was cancelled; or the loop has stopped.
            Exception: whatever `work` raises.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop is closed, or never ran
            work.close()
            raise TimeoutError from None
        try:
            return future.result(timeout)
        except (TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            raise TimeoutError from None

    def _own(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        """Until the stop; `asyncio.run` then cancels what is left, and each generation tells its reader."""
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._is_running.set()
        await self._stopping.wait()
