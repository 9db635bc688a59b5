"""The end of a job: what it leaves behind, then its terminal reply. Under no lock, since a store may take its time.

The thread that worked on a job writes its end; a cancel's, the thread that admits: what comes behind it in the same
session finds that free. A job whose deadline passes in the queue, or that a shutdown finds there, has neither, and goes
to the thread `endings`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Answer, Job
from inferbus_worker.flow.meter import Meter
from inferbus_worker.state.protocols import Finished, Idempotency

log = logging.getLogger("inferbus.endings")


class Endings:
    """Any thread may use it. `start` and `stop` are for the thread's owner.

    Args:
        steps: what follows from an end, in this order. Each is taken, whatever the ones before it raise.
    """

    def __init__(self, *steps: Callable[[Job], None]) -> None:
        self._steps: Final = steps
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="endings", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Write what waits, for at most `timeout` seconds."""
        self._waiting.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def later(self, job: Job) -> None:
        """Write the end of a job that has been marked while it waited. Does not wait."""
        self._waiting.put(job)

    def write(self, job: Job, outcome: Answer | Failure | None = None) -> None:
        """Write the end of a job, once: history, claim, accounts, and when all that is done, the terminal reply.

        Args:
            job: which.
            outcome: what it ends with, unless that has been decided before.
        """
        if job.outcome is None:
            job.settle(outcome or Failure("engine_error"))
        if job.finish():
            self.write_finished(job)

    def write_finished(self, job: Job) -> None:
        """As `write`, for whoever has been told that the end is his to write (`Job.mark`, `Job.finish`)."""
        for step in self._steps:
            try:
                step(job)
            except BaseException:  # a Rust library's panic is no `Exception`
                log.exception("the end of a request could not be written as a whole")

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                self.write(job)
            except BaseException:  # a Rust library's panic is no `Exception`, and others wait for this thread
                log.exception("the end of a request could not be written")


def endings_in_memory(*, in_flight: InFlight, meter: Meter, recent: Idempotency) -> Endings:
    """Where nothing is shared: the store is this process, and the terminal reply comes last."""

    def remember_outcome(job: Job) -> None:
        if job.retry is not None:
            recent.finished(job.retry, Finished(job.key.session, job.terminal()))

    return Endings(_remember_turn, _release, in_flight.remove, measure(meter), _settle_charge, remember_outcome, _say)


def measure(meter: Meter) -> Callable[[Job], None]:
    """The step in which a job is counted."""

    def measured(job: Job) -> None:
        if job.outcome is not None:
            meter.ended(job, job.outcome)

    return measured


def _remember_turn(job: Job) -> None:
    if isinstance(job.outcome, Answer) and not job.claim.commit(job.outcome.change):
        log.warning("a turn came too late to be remembered: its session has gone on without it")


def _release(job: Job) -> None:
    job.claim.release()


def _settle_charge(job: Job) -> None:
    if job.charge is None:
        return
    if isinstance(job.outcome, Answer):
        job.charge.settle(job.outcome.usage.prompt_tokens + job.outcome.usage.completion_tokens)
    elif not job.reached_engine:
        job.charge.settle(0)


def _say(job: Job) -> None:
    job.replies.end(job.terminal())
