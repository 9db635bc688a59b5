"""Makes of what was taken from the store what the worker's other rooms know: a job, with the stream of its replies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cachetools import LRUCache, TTLCache

from inferbus_client.contract.topics import Kind
from inferbus_client.contract.trace import read_trace
from inferbus_client.contract.wire import Failure, Request
from inferbus_client.tracing.spans import Tracer
from inferbus_worker.flow.job import Job
from inferbus_worker.group.holdings import GroupClaim
from inferbus_worker.group.writing import Body, UnreadableError, read_body, read_terminal
from inferbus_worker.replies.address import Owed
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.replies.sender import Sender
from inferbus_worker.state.conversation import Conversation
from inferbus_worker.state.redis.group import Taken
from inferbus_worker.tracing import RequestTrace

#: Bytes. Of a worker that is dealt much more than it takes the oldest go.
_MOST_KNOWN: Final = 16 * 1024 * 1024
#: Bytes that a request takes besides its payload, which is held as it came and as it was read; rather too many.
_EACH: Final = 4096
#: Cancels of jobs that are on their way from the store to here, and for how long they are remembered.
_MOST_CANCELS: Final = 1024
_CANCELS_FOR: Final = 5.0
#: Stands in the place of what a job asked for that is only ended.
_UNREAD: Final = Request(message="?")


class Reopening:
    """Any thread may use it.

    Args:
        worker: this one's id, for those who are told who has their request.
        sender: opens reply streams.
        tracer: makes spans of requests; None: nobody does.
        slot_timeout: seconds that a job may wait for a slot, here as well; None: any time.
        clock: a monotonic one.
    """

    def __init__(
        self,
        worker: str,
        sender: Sender,
        tracer: Tracer | None,
        slot_timeout: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._sender = sender
        self._tracer = tracer
        self._slot_timeout = slot_timeout
        self._clock = clock
        #: Requests that this worker has admitted itself, and need not read again.
        self._known: LRUCache[str, tuple[Body, Request]] = LRUCache(_MOST_KNOWN, getsizeof=_size)
        self._cancelled: TTLCache[str, None] = TTLCache(_MOST_CANCELS, _CANCELS_FOR)
        self._lock = threading.Lock()

    def admitted(self, job: str, body: Body, request: Request) -> None:
        """Perhaps this worker takes it, too."""
        with self._lock, suppress(ValueError):  # larger than all together may be: it is read again
            self._known[job] = body, request

    def cancelled(self, job: str) -> None:
        """A job that nobody has here was cancelled: perhaps it is on its way."""
        with self._lock:
            self._cancelled[job] = None

    def job(self, taken: Taken, claim: GroupClaim, *, runs: bool = True) -> Job:
        """What was taken, ready to be run.

        Args:
            taken: a job.
            claim: of its session.
            runs: whether it is to be run: else nobody need be able to read what it asks for.

        Raises:
            UnreadableError: it cannot be read.
        """
        now = self._clock()
        with self._lock:
            known = self._known.pop(taken.job, None)
            is_cancelled = taken.is_cancelled or taken.job in self._cancelled
        if known is None:
            body = read_body(taken.body)
            known = body, body.request() if runs else _UNREAD
        body, request = known
        # Who admitted it has said that it is accepted; of a run that begins anew, its worker says so.
        begins_anew = taken.run > 0
        address = body.address._replace(
            run=taken.run,
            first_seq=0 if begins_anew else 1,
            receipt=claim.owed,
            worker=self._worker,
            trace=self._trace(body),
        )
        job = Job(
            request=request,
            key=body.key,
            claim=claim,
            replies=self._sender.open(address),
            admitted_at=now - taken.waited,
            deadline=None if taken.deadline is None else now + taken.deadline,
            model=taken.model,
            clock=self._clock,
        )
        if self._slot_timeout is not None:
            job.wait_until(now + self._slot_timeout)
        claim.may_repeat = body.may_repeat
        if begins_anew:
            job.replies.accepted(0, 0)
        if address.trace is not None:
            address.trace.waits()
        if is_cancelled:
            job.mark(Failure("cancelled"))
        return job

    def ended(self, taken: Taken, failure: Failure) -> Job | None:
        """A job that ends before it has run, marked; None where it cannot be read."""
        try:
            job = self.job(taken, GroupClaim(taken, Conversation()), runs=False)
        except UnreadableError:
            return None
        job.mark(failure)
        return job

    @staticmethod
    def owed(taken: Taken) -> Outgoing:
        """The terminal reply that another worker has written and could not send; see `job`."""
        reply = read_terminal(taken.owed or b"")
        assert reply.address is not None  # noqa: S101 - it has been read
        return reply._replace(address=reply.address._replace(receipt=Owed(taken.job, taken.token)))

    def _trace(self, body: Body) -> RequestTrace | None:
        incoming = read_trace(body.traced)
        if incoming is None and self._tracer is None:
            return None
        return RequestTrace(self._tracer, incoming, Kind.USER_INPUT.value, body.key.project)


def _size(known: tuple[Body, Request]) -> int:
    return 2 * len(known[0].payload) + _EACH
