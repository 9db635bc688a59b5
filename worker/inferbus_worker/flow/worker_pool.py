"""N named threads that take requests and run turns."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from inferbus_worker.flow.job import Job
from inferbus_worker.flow.queue import RequestQueue

log = logging.getLogger("inferbus.worker_pool")


class WorkerPool:
    """Threads `worker-0` … `worker-N-1`, from `start` on."""

    def __init__(self, queue: RequestQueue) -> None:
        self._queue = queue
        self._threads: list[threading.Thread] = []
        self._under_way: set[Job] = set()

    @property
    def size(self) -> int:
        """How many turns may run at once; 0 until that is known."""
        return len(self._threads)

    @property
    def active(self) -> int:
        """Turns under way now."""
        return len(self._under_way)

    def start(self, size: int, run_turn: Callable[[Job], None], ended: Callable[[Job], None]) -> None:
        """Begin to take requests.

        Args:
            size: how many threads; never more than the engine has slots: who takes a job can run it.
            run_turn: runs a job's turn.
            ended: told of a job that was left open by that, whatever it has raised.
        """
        self._threads = [
            threading.Thread(target=self._work, args=(run_turn, ended), name=f"worker-{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> bool:
        """Let every thread finish its turn and end; one deadline for all of them.

        Returns:
            Whether all ended within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        self._queue.close()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, run_turn: Callable[[Job], None], ended: Callable[[Job], None]) -> None:
        while (job := self._queue.take()) is not None:
            self._under_way.add(job)
            try:
                try:
                    run_turn(job)
                finally:
                    if not job.is_finished:
                        ended(job)
            except BaseException:  # a Rust library's panic is no `Exception`
                log.exception("a worker thread survived an error")
            finally:
                self._under_way.discard(job)
