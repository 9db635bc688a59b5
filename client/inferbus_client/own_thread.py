"""Blocking work for an event loop, in a thread of its own.

The loop's executor is the program's: it may be full of the program's own work, and what waits in it cannot be cancelled
out of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


async def in_own_thread(work: Callable[[], None], name: str) -> None:
    """Run `work`, and raise what it raises. If this is cancelled the work goes on, and nobody hears of it."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if finished.cancelled():
            return
        if error is None:
            finished.set_result(None)
        else:
            finished.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except StopIteration as raised:  # which no future takes
            error = RuntimeError("what ran in a thread of its own raised StopIteration")
            error.__cause__ = raised
        except BaseException as raised:  # noqa: BLE001 - it is raised where it is waited for
            error = raised
        with suppress(RuntimeError):  # the loop has ended, and whoever waited with it
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    await finished
