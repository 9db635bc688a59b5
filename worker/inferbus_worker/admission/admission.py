"""Who gets in: decode, known duplicate, rate limits, claim the session, room in the queue, token budget.

The first that says no answers at once. A refused request leaves nothing behind, except that every well-formed one which
the rate limits let through counts in their windows, and so does a repeat that is answered from memory. The token budget
comes last: it has to know the session's history, which is the claim's; it counts tokens, which costs more than all the
rest, and in vain where there is no room; and what it charges is charged for good. Runs in the network thread: nothing
here waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

from inferbus_client.contract.topics import Address, is_session, new_session_id
from inferbus_client.contract.wire import (
    Control,
    Envelope,
    Failure,
    InvalidPayloadError,
    Request,
    decode_object,
    decode_request,
)
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.admission.limits import RateLimits
from inferbus_worker.admission.token_budget import TokenBudget
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Answer, Job
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.stream import ReplyStream
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.memory.idempotency import Finished, RecentRequests, RetryKey
from inferbus_worker.state.memory.sessions import Claim, SessionKey, SessionStore

log = logging.getLogger("inferbus.admission")

# Seconds after which to ask again for an answer in a given form, where nothing better is known.
_LEAST_WAIT = 1.0

RESET_TEXT = "Conversation reset."


class Admission:
    """Decides on every request and, where it is yes, puts a `Job` into the queue."""

    def __init__(
        self,
        *,
        settings: Settings,
        sessions: SessionStore,
        limits: RateLimits,
        budget: TokenBudget | None,
        queue: RequestQueue,
        in_flight: InFlight,
        recent: RecentRequests,
        addressing: Addressing,
        meter: Meter,
        gate: Callable[[], Failure | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._projects = settings.projects
        self._max_tokens_caps = {name: settings.max_tokens_cap_of(name) for name in settings.projects}
        self._form_share = settings.form_share
        self._max_message_bytes = settings.max_message_bytes
        self._readable_bytes = settings.readable_bytes
        self._sessions = sessions
        self._limits = limits
        self._budget = budget
        self._queue = queue
        self._in_flight = in_flight
        self._recent = recent
        self._addressing = addressing
        self._meter = meter
        self._gate = gate
        self._clock = clock

    def user_input(
        self, address: Address, message: Incoming, *, again: bool = False, since: float | None = None
    ) -> bool:
        """A message on a `user_input` topic: a request, or a reset.

        Args:
            address: what the topic says.
            message: as it came.
            again: it comes again, and has been handled before: a reset must not undo what was said since.
            since: when it came, if that was before now: what the requester allows it counts from there.

        Returns:
            Whether a terminal reply answers it. Only a repeat of a request in flight has none of its own.
        """
        try:
            request = self._decode(address, message)
        except InvalidPayloadError as refusal:
            key = _session_key(address, refusal.envelope)
            self._refuse(refusal.failure, self._addressing.open(message, refusal.envelope, key))
            return True
        known = self._known(request, address)
        if known is not None:
            return self._repeat(known, request, address, message)
        key = _session_key(address, request)
        replies = self._addressing.open(message, request, key)
        if isinstance(request, Control):
            self._reset(key, replies, again=again)
        else:
            deadline = _deadline(request, message.expiry, self._clock() if since is None else since)
            self._admit(request, _retry_key(request, address), key, replies, deadline)
        return True

    def set_aside(self, address: Address, message: Incoming) -> None:
        """A message that has crashed its worker again and again is answered, and not run."""
        try:
            envelope: Envelope = self._decode(address, message)
        except InvalidPayloadError as refusal:
            envelope = refusal.envelope
        self._refuse(Failure("engine_error"), self._addressing.open(message, envelope, _session_key(address, envelope)))

    def _decode(self, address: Address, message: Incoming) -> Request | Control:
        if message.cut or len(message.payload) > self._max_message_bytes:
            raise InvalidPayloadError(Failure("message_too_large"), self._envelope_of_large(message.payload))
        resets = not message.payload and address.session is not None
        request = Control(reset=True) if resets else decode_request(message.payload)
        if address.session is not None and not is_session(address.session):
            detail = "The topic's session must match [A-Za-z0-9_.:-]{1,128}."
            raise InvalidPayloadError(Failure("invalid_request", detail), request)
        if isinstance(request, Request):
            self._check_allowed(address.project, request)
        return request

    def _check_allowed(self, project: str, request: Request) -> None:
        wants_format = request.params is not None and request.params.response_format is not None
        if wants_format and not self._projects[project].response_format:
            detail = "params.response_format is not allowed in this project."
            raise InvalidPayloadError(Failure("invalid_request", detail), request)
        cap = self._max_tokens_caps[project]
        if cap is not None and request.max_tokens is not None and request.max_tokens > cap:
            detail = f"maxTokens: at most {cap} are allowed in this project."
            raise InvalidPayloadError(Failure("invalid_request", detail), request)

    def _envelope_of_large(self, payload: bytes) -> Envelope:
        if len(payload) > self._readable_bytes:
            return Envelope()
        try:
            fields = decode_object(payload)
        except InvalidPayloadError:
            return Envelope()
        return Envelope() if isinstance(fields, str) else Envelope.salvage(fields)

    def _known(self, request: Request | Control, address: Address) -> Finished | Literal["in flight"] | None:
        """What is known of this request, if it ran before or runs now."""
        retry = _retry_key(request, address) if isinstance(request, Request) else None
        return None if retry is None else self._recent.known(retry)

    def _repeat(
        self, known: Finished | Literal["in flight"], request: Envelope, address: Address, message: Incoming
    ) -> bool:
        """Answer a repeat from memory, which counts like a request, or leave it to the one that runs."""
        self._meter.repeated()
        if isinstance(known, str):
            return False
        key = SessionKey(address.project, known.session, address.user)
        replies = self._addressing.open(message, request, key)
        limited = self._over_limit(key, request)
        if limited is not None:
            self._refuse(limited, replies)
        else:
            replies.end(known.outcome)
        return True

    def _admit(
        self, request: Request, retry: RetryKey | None, key: SessionKey, replies: ReplyStream, deadline: float | None
    ) -> None:
        now = self._clock()
        failure = self._gate() or self._over_limit(key, request)
        if failure is not None:
            self._refuse(failure, replies)
            return
        claim = self._sessions.claim(key)
        if claim is None:
            self._refuse(Failure("session_busy"), replies)
            return
        position = self._queue.position(key.project, key.owner(request.client_id))
        failure = self._too_many_forms(request) or self._no_room(position, deadline, now)
        if failure is not None or position is None:
            claim.release()
            self._refuse(failure or Failure("overloaded"), replies)
            return
        job = self._job(request, retry, key, claim, replies, now, deadline)
        failure = None if self._budget is None else self._budget.admit(job)
        if failure is not None:
            claim.release()
            self._refuse(failure, replies)
            return
        replies.accepted(position, _milliseconds(self._meter.wait_estimate(position)))
        if retry is not None:
            self._recent.begin(retry)
        self._in_flight.add(job)
        self._queue.put(job)

    def _over_limit(self, key: SessionKey, request: Envelope) -> Failure | None:
        wait = self._limits.admit(key, request.client_id)
        return None if wait is None else Failure("rate_limited", retry_after_ms=_milliseconds(wait))

    def _too_many_forms(self, request: Request) -> Failure | None:
        """Answers in a given form never take up all workers: the grammars that they need can keep an engine busy."""
        if not request.has_form or self._form_share == 1:
            return None
        slots = self._meter.slots or 1
        if self._in_flight.forms < max(1, int(slots * self._form_share)):
            return None
        wait = max(self._meter.wait_estimate(slots) or 0, _LEAST_WAIT)
        detail = "As many answers in a given form as may be are under way."
        return Failure("overloaded", detail, retry_after_ms=_milliseconds(wait))

    def _no_room(self, position: int | None, deadline: float | None, now: float) -> Failure | None:
        if position is None:
            wait = self._meter.wait_estimate(0)
            return Failure("overloaded", retry_after_ms=_milliseconds(wait) if wait else None)
        if deadline is not None and now + (self._meter.wait_estimate(position) or 0) > deadline:
            return Failure("deadline_exceeded", "It cannot be met: the wait in the queue alone is longer.")
        return None

    def _job(
        self,
        request: Request,
        retry: RetryKey | None,
        key: SessionKey,
        claim: Claim,
        replies: ReplyStream,
        now: float,
        deadline: float | None,
    ) -> Job:
        def ended(job: Job, outcome: Answer | Failure) -> None:
            self._in_flight.remove(job)
            self._meter.ended(job, outcome)
            if self._budget is not None:
                self._budget.ended(job, outcome)
            if retry is not None:
                self._recent.end(retry, Finished(key.session, job.terminal(outcome)))

        return Job(
            request=request,
            key=key,
            claim=claim,
            replies=replies,
            admitted_at=now,
            deadline=deadline,
            clock=self._clock,
            on_end=ended,
        )

    def _reset(self, key: SessionKey, replies: ReplyStream, *, again: bool) -> None:
        claim = self._sessions.claim(key)
        if claim is None:
            self._refuse(Failure("session_busy"), replies)
            return
        if not again:
            claim.conversation.clear()
        claim.release()
        replies.end(Answered(RESET_TEXT))

    def _refuse(self, failure: Failure, replies: ReplyStream) -> None:
        self._meter.rejected(failure.code)
        log.debug("refused a request: %s", failure.message)
        replies.end(failure)


def _session_key(address: Address, envelope: Envelope) -> SessionKey:
    """The topic's session, else the payload's, else a fresh one; never one that is not allowed."""
    named = address.session if address.session is not None else envelope.session_id
    legal = named if named is not None and is_session(named) else new_session_id()
    return SessionKey(address.project, legal, address.user)


def _retry_key(request: Request, address: Address) -> RetryKey | None:
    if request.client_id is None or request.request_id is None:
        return None
    session = address.session if address.session is not None else request.session_id
    return RetryKey(address.scope, session, request.client_id, request.request_id)


def _deadline(request: Request, expiry: int | None, since: float) -> float | None:
    """The sooner of the payload's deadline and MQTT 5's Message Expiry, on the monotonic clock."""
    limits = [request.deadline_ms / 1000] if request.deadline_ms is not None else []
    limits += [float(expiry)] if expiry is not None else []
    return since + min(limits) if limits else None


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * 1000)) if seconds else 0
