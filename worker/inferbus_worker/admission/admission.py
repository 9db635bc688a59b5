"""Who gets in: decode, known duplicate, rate limits, claim the session, room in the queue, token budget.

The first that says no answers at once. A refused request leaves nothing behind, except that every well-formed one which
the rate limits let through counts in their windows, and so does a repeat that is answered from memory. The token budget
comes last: it has to know the session's history, which is the claim's; it counts tokens, which costs more than all the
rest, and in vain where there is no room; and what it charges is charged for good.

For one thread: see `intake` for which.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Literal

from inferbus_client.contract.wire import Control, Failure, InvalidPayloadError, Request
from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.admission.arrival import Arrival
from inferbus_worker.admission.decoding import Decoding, deadline_of, retry_key
from inferbus_worker.admission.gate import Gate
from inferbus_worker.admission.limits import RateLimits
from inferbus_worker.admission.refusals import (
    TOO_LATE,
    milliseconds,
    most_forms,
    rate_limited,
    too_many_forms,
    without_room,
)
from inferbus_worker.admission.token_budget import TokenBudget
from inferbus_worker.engines.registry import Registry
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.stream import ReplyStream
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.conversation import Change
from inferbus_worker.state.keys import RetryKey, SessionKey
from inferbus_worker.state.protocols import Finished, Stores
from inferbus_worker.state.stateless import NO_CLAIM

log = logging.getLogger("inferbus.admission")

RESET_TEXT: Final = "Conversation reset."


class Admission:
    """Decides on every request and, where it is yes, puts a `Job` into the queue.

    Args:
        settings: the worker's.
        stores: conversations, and the outcomes of requests.
        limits: the rate limits.
        budget: the token budget, where there is one.
        registry: the models.
        queue: where requests wait.
        in_flight: the requests that have not ended.
        meter: counts.
        addressing: opens reply streams.
        gate: whether anything is taken now.
        clock: a monotonic one.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        stores: Stores,
        limits: RateLimits,
        budget: TokenBudget | None,
        registry: Registry,
        queue: RequestQueue,
        in_flight: InFlight,
        meter: Meter,
        addressing: Addressing,
        gate: Gate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decoding = Decoding(settings)
        self._form_share = settings.form_share
        self._slot_timeout = settings.slot_timeout_in_force
        self._sessions = stores.sessions
        self._recent = stores.recent
        self._limits = limits
        self._budget = budget
        self._registry = registry
        self._queue = queue
        self._in_flight = in_flight
        self._meter = meter
        self._addressing = addressing
        self._gate = gate
        self._clock = clock

    def user_input(self, arrival: Arrival) -> bool:
        """A message on a `user_input` topic: a request, or a reset.

        Returns:
            Whether a terminal reply answers it. Only a repeat of a request in flight has none of its own.
        """
        address = arrival.address
        try:
            request = self._decoding.decode(address, arrival.message)
        except InvalidPayloadError as refusal:
            key = self._decoding.session_key(address, refusal.envelope)
            self._refuse(refusal.failure, self._addressing.open(arrival, refusal.envelope, key))
            return True
        if isinstance(request, Control):
            self._reset(arrival, request)
            return True
        retry = retry_key(address, request)
        known = None if retry is None else self._recent.known(retry)
        if known is not None:
            return self._repeat(known, request, arrival)
        return self._admit(arrival, request, retry)

    def _admit(self, arrival: Arrival, request: Request, retry: RetryKey | None) -> bool:
        """Put a request into the queue, or say why not; see `user_input`."""
        key = self._decoding.session_key(arrival.address, request)
        replies = self._addressing.open(arrival, request, key)
        model = self._registry.meant(key.project, request.model)
        if isinstance(model, Failure):
            self._refuse(model, replies)
            return True
        serving = self._registry.serving(model)
        failure = self._closed() or (
            self._registry.unavailable(model) if serving is None else self._count(key, request)
        )
        claim = None if failure is not None else NO_CLAIM if request.is_stateless else self._sessions.claim(key)
        if claim is None:
            self._refuse(failure or Failure("session_busy"), replies)
            return True
        now = self._clock()
        job = Job(
            request=request,
            key=key,
            claim=claim,
            replies=replies,
            admitted_at=now,
            deadline=deadline_of(request, arrival.message.expiry, now if arrival.since is None else arrival.since),
            retry=retry,
            model=(serving or model).key,
            clock=self._clock,
        )
        if self._slot_timeout is not None:
            job.wait_until(now + self._slot_timeout)
        is_admitted = False
        try:
            why_not = self._put_in_line(job)
            is_admitted = why_not is None
        finally:
            if not is_admitted:
                claim.release()
        if isinstance(why_not, Failure):
            self._refuse(why_not, replies)
        return why_not != "in flight"

    def refuse(self, arrival: Arrival, failure: Failure) -> None:
        """Answer a request without looking into it any further than for where to answer."""
        envelope = self._decoding.envelope(arrival.address, arrival.message)
        self._refuse(
            failure, self._addressing.open(arrival, envelope, self._decoding.session_key(arrival.address, envelope))
        )

    def _repeat(self, known: Finished | Literal["in flight"], request: Request, arrival: Arrival) -> bool:
        """Answer a repeat from memory, which counts like a request, or leave it to the one that runs."""
        self._meter.repeated()
        if isinstance(known, str):
            return False
        key = self._decoding.session_key(arrival.address, request)._replace(session=known.session)
        replies = self._addressing.open(arrival, request, key)
        limited = self._count(key, request)
        if limited is not None:
            self._refuse(limited, replies)
        else:
            replies.end(known.outcome)
        return True

    def _put_in_line(self, job: Job) -> Failure | Literal["in flight"] | None:
        """Put a job into the queue, or say why not."""
        position = self._queue.position(job.key.project, job.owner, job.model)
        failure = self._too_many_forms(job) or self._no_room(position, job)
        if failure is None and self._budget is not None:
            # To count tokens may have taken a while: whoever goes must not leave a job to nobody.
            failure = self._budget.admit(job) or self._closed()
        if failure is not None or position is None:
            return failure
        if job.retry is not None and not self._recent.started(job.retry):
            self._meter.repeated()
            return "in flight"
        # The text half does not say that it was accepted, nor for how long it waits.
        wait = self._meter.wait_estimate(position, job.model) if job.replies.address.json else None
        job.replies.accepted(position, None if wait is None else milliseconds(wait))
        if (trace := job.replies.address.trace) is not None:
            trace.waits()
        self._in_flight.add(job)
        self._queue.put(job)
        return None

    def _closed(self) -> Failure | None:
        return self._gate.reason or (Failure("overloaded") if self._addressing.is_congested else None)

    def _count(self, key: SessionKey, request: Request) -> Failure | None:
        """Count a request in its windows, or refuse it."""
        wait = self._limits.admit(key, request.client_id, in_session=not request.is_stateless)
        return None if wait is None else rate_limited(wait)

    def _too_many_forms(self, job: Job) -> Failure | None:
        if not job.request.has_form or self._form_share == 1:
            return None
        if self._in_flight.forms(job.model) < most_forms(self._meter, job.model, self._form_share):
            return None
        return too_many_forms(self._meter, job.model)

    def _no_room(self, position: int | None, job: Job) -> Failure | None:
        if position is None:
            return without_room(self._meter, job.model)
        if job.deadline is None:
            return None
        wait = self._meter.wait_estimate(position, job.model) or 0
        return TOO_LATE if job.admitted_at + wait > job.deadline else None

    def _reset(self, arrival: Arrival, control: Control) -> None:
        """Forget the conversation; not again where that comes again, or it would undo what was said since."""
        key = self._decoding.session_key(arrival.address, control)
        replies = self._addressing.open(arrival, control, key)
        claim = self._sessions.claim(key)
        if claim is None:
            self._refuse(Failure("session_busy"), replies)
            return
        try:
            if not arrival.again:
                claim.commit(Change(resets=True))
        finally:
            claim.release()
        replies.end(Answered(RESET_TEXT))

    def _refuse(self, failure: Failure, replies: ReplyStream) -> None:
        self._meter.rejected(failure.code)
        log.debug("refused a request: %s", failure.message)
        replies.end(failure)
