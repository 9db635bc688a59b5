"""N named threads that take requests and run turns."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from inferbus_client.contract.wire import Failure
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.queue import RequestQueue

log = logging.getLogger("inferbus.worker_pool")


class WorkerPool:
    """Threads `worker-0` … `worker-N-1`. Never more of them than the engine has slots: who takes a job can run it."""

    def __init__(self, size: int, queue: RequestQueue, run_turn: Callable[[Job], None]) -> None:
        self._queue = queue
        self._run_turn = run_turn
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(size)
        ]
        self._under_way: set[Job] = set()

    def __len__(self) -> int:
        return len(self._threads)

    @property
    def active(self) -> int:
        """Turns under way now."""
        return len(self._under_way)

    def start(self) -> None:
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
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._queue.take()) is not None:
            self._under_way.add(job)
            try:
                self._run(job)
            except BaseException:
                log.exception("a worker thread survived an error")
            finally:
                self._under_way.discard(job)

    def _run(self, job: Job) -> None:
        """Run the turn. Whatever becomes of it, the job has ended then; a Rust library's panic is no `Exception`."""
        try:
            self._run_turn(job)
        finally:
            if not job.ended:
                job.end(Failure("engine_error"))
