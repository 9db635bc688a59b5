"""Named threads that take requests and run turns: as many as rest, and more while requests wait for a thread alone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from inferbus_worker.flow.job import Job
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.seldom import Seldom

log = logging.getLogger("inferbus.worker_pool")

#: Seconds in which the threads that there are may see to what waits, before there are more.
_PATIENCE: Final = 0.01
#: And in how many steps that time passes.
_STEPS: Final = 5
#: Seconds after an error of the queue's until a thread asks it again.
_AGAIN: Final = 1.0
#: Seconds after which a thread goes that nobody needed.
_IDLE: Final = 30.0


class WorkerPool:
    """Threads `worker-0` … `worker-N-1` from `start` on, and the thread `worker-pool` that starts more.

    A thread costs little while its turn waits for the engine, and much where turns are short: they would only take the
    interpreter from each other. So there are more of them only where those that there are all wait.
    """

    def __init__(self, queue: RequestQueue, *, idle: float = _IDLE) -> None:
        self._queue = queue
        self._idle = idle
        self._rest = 0
        self._most: Callable[[], int] = lambda: 0
        self._run_turn: Callable[[Job], None]
        self._ended: Callable[[Job], None]
        self._threads: dict[int, threading.Thread] = {}
        # By the threads' numbers: a job that goes again may already be in another's hands.
        self._busy: dict[int, Job] = {}
        self._lock = threading.Lock()
        self._short = threading.Event()
        self._seldom = Seldom(log)
        self._stopped = threading.Event()
        self._grower = threading.Thread(target=self._grow, name="worker-pool", daemon=True)

    @property
    def size(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    @property
    def active(self) -> int:
        """Turns under way now."""
        return len(self._busy)

    def start(
        self,
        rest: int,
        run_turn: Callable[[Job], None],
        ended: Callable[[Job], None],
        most: Callable[[], int] | None = None,
    ) -> None:
        """Begin to take requests.

        Args:
            rest: how many threads there are at rest, where so many may be.
            run_turn: runs a job's turn; a job that it has given back to the queue is not its any more.
            ended: told of a job that was left open by an error.
            most: how many there may be now; where it is not given, as many as at rest.
        """
        self._rest, self._most = rest, most or (lambda: rest)
        self._run_turn, self._ended = run_turn, ended
        for _ in range(min(rest, self._most())):
            self._add()
        self._queue.when_short = self._short.set
        self._grower.start()

    def stop(self, timeout: float) -> bool:
        """Let every thread finish its turn and end; one deadline for all of them.

        Returns:
            Whether all ended within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        self._stopped.set()
        self._short.set()
        self._queue.close()
        with self._lock:
            threads = list(self._threads.values())
        if self._grower.ident is not None:
            threads.append(self._grower)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _add(self) -> None:
        with self._lock:
            if self._stopped.is_set():
                return
            number = next(number for number in range(len(self._threads) + 1) if number not in self._threads)
            thread = threading.Thread(target=self._work, args=(number,), name=f"worker-{number}", daemon=True)
            # Counted before it runs: it may have a turn at once, and there are never more of those than threads.
            self._threads[number] = thread
            try:
                thread.start()
            except BaseException:  # the system gives no more
                del self._threads[number]
                raise

    def _grow(self) -> None:
        """Start threads while requests wait for nothing else."""
        while not self._stopped.is_set():
            self._short.wait()
            self._short.clear()
            try:
                self._grow_once()
            except Exception as error:  # noqa: BLE001 - mostly the system gives no more; who waits next asks again
                self._seldom.warning("%d worker threads, and no more: %s", self.size, error)

    def _grow_once(self) -> None:
        before = self._busy.copy()
        # Where the interpreter is short each step takes longer, as do the turns: more threads would only take it from
        # each other.
        for _ in range(_STEPS):
            time.sleep(_PATIENCE / _STEPS)
        more = min(self._queue.could_start(), self._most() - self.size)
        # Where one of those that there are has had time for another turn, more threads are no help.
        if sum(self._busy.get(number) is job for number, job in before.items()) < self.size:
            if more > 0:
                self._short.set()  # to look once more
            return
        for _ in range(more):
            self._add()

    def _work(self, number: int) -> None:
        while True:
            try:
                job = self._queue.take(self._idle)
            except BaseException as error:  # noqa: BLE001 - a Rust library's panic is no `Exception`
                self._seldom.warning("a worker thread got no request, and tries again: %r", error)
                self._stopped.wait(_AGAIN)
                job = None
            if job is not None:
                self._run(job, number)
            elif self._leaves(number):
                return

    def _leaves(self, number: int) -> bool:
        """Whether this thread may go: nobody needed it, or all go."""
        with self._lock:
            leaves = self._stopped.is_set() or len(self._threads) > self._rest
            if leaves:
                del self._threads[number]
        if leaves:
            self._short.set()  # what has come since its patience ended found it counted, and not there
        return leaves

    def _run(self, job: Job, number: int) -> None:
        self._busy[number] = job
        try:
            try:
                self._run_turn(job)
            except BaseException:
                self._ended(job)
                raise
        except BaseException:  # a Rust library's panic is no `Exception`
            log.exception("a worker thread survived an error")
        finally:
            del self._busy[number]
