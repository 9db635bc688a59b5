"""One request from its first send to its end: attempts, timeouts, retries. Shared by `Client` and `AsyncClient`.

The logic does no waiting of its own. It is a generator of steps: `Receive` (wait at most so long for an event, and send
it in) and what the caller should see (`Accepted`, `Delta`, `Restarted`). A thread drives it with a queue, an event loop
with `await`; what happens when is written once, here.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Generator
from typing import Final, Protocol

from inferbus_client.contract.wire import Delta, Done, ErrorReply, Failure
from inferbus_client.errors import (
    BrokerError,
    MessageRefusedError,
    MisuseError,
    RequestFailedError,
    RequestTimeoutError,
)
from inferbus_client.exchange.answer import Answer, Restarted
from inferbus_client.exchange.assembly import AnyReply, Assembly
from inferbus_client.exchange.call import Call
from inferbus_client.exchange.pacing import Backoff, Clock, Pacer
from inferbus_client.exchange.steps import Event, Receive, Retry, Signal, Step, Steps, TextReply
from inferbus_client.settings.client import Terms

#: Seconds that the worker has, after our deadline, to say `deadline_exceeded` itself: its word says where it passed.
_GRACE: Final = 0.5
_WORD: Final = "word after reconnecting"


class Outlet(Protocol):
    """What an exchange sends through."""

    @property
    def repeats_are_safe(self) -> bool:
        """Whether the worker is known to drop a repeat of a request id."""

    def send(self, call: Call, remaining: float) -> bool:
        """Publish the call; False where there is no connection to take it."""

    def cancel(self, call: Call) -> None:
        """Tell the worker that nobody waits any more."""


class Exchange:
    """One request's state. `steps` runs it; afterwards `answer` is there, or an exception was raised."""

    def __init__(
        self,
        call: Call,
        outlet: Outlet,
        terms: Terms,
        pacer: Pacer,
        *,
        backoff: Backoff | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.call = call
        self.answer: Answer | None = None
        self._outlet = outlet
        self._terms = terms
        self._pacer = pacer
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._deadline = clock() + terms.timeout
        self._assembly = Assembly()
        self._early: deque[Event] = deque()
        self._attempts = 0
        self._lost = 0
        self._repeats = 0
        self._outstanding = False
        self._alive = False
        self._reconnected = False
        self._first_sent = self._last_sent = self._last_heard = math.nan
        self._first_token: float | None = None

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; never negative."""
        return max(self._deadline - self._clock(), 0.0)

    def steps(self) -> Steps:
        """Run the exchange.

        Raises:
            RequestFailedError: the worker refused or failed, finally.
            RequestTimeoutError: it kept silent.
            BrokerError: the connection is gone for good.
        """
        try:
            for attempt in itertools.count():
                end = yield from self._attempt()
                if isinstance(end, Done):
                    self.answer = self._whole_answer(end)
                    return
                again = self._retry_or_raise(attempt, end)
                yield again
                yield from self._pause(again.seconds)
                self._begin_again()
        finally:
            if self._outstanding:
                self._outlet.cancel(self.call)

    def result(self) -> Answer:
        """The answer, after `steps` has ended.

        Raises:
            MisuseError: it has not, or with an error.
        """
        if self.answer is None:
            raise MisuseError("there is no answer: it has not come to its end yet, or ended with an error")
        return self.answer

    # --- one attempt ---

    def _attempt(self) -> Generator[Step, Event | None, Done | Failure]:
        self._attempts += 1
        yield from self._send()
        while (end := self._assembly.end) is None:
            patience, what = self._patience()
            event = self._early.popleft() if self._early else (yield Receive(max(patience, 0.0)))
            if isinstance(event, BrokerError):
                self._outstanding = self._outstanding and not isinstance(event, MessageRefusedError)
                raise event
            if event is None:
                yield from self._on_silence(what)
            elif event is Signal.RECONNECTED:
                yield from self._on_reconnect()
            elif not isinstance(event, Signal):
                yield from self._on_reply(event)
        self._outstanding = False
        return end

    def _send(self) -> Steps:
        while (wait := self._pacer.take(self.call.line)) > 0:
            if wait <= self.remaining:
                yield from self._pause(wait, until_heard=self._outstanding)
            elif self._outstanding:
                self._last_sent = self._clock()  # what was sent may still be answered; a repeat will not be
                return
            else:
                raise RequestTimeoutError("free slot to send in", self._terms.timeout)
            if self._early and self._outstanding:  # a repeat that needs no sending any more
                return
        self._last_sent = self._clock()
        if math.isnan(self._first_sent):
            self._first_sent = self._last_sent
        before, self._outstanding = self._outstanding, True  # said first: an interrupt may come with the publish
        if not self._outlet.send(self.call, self.remaining):
            self._outstanding = before

    def _pause(self, seconds: float, *, until_heard: bool = False) -> Steps:
        """Wait, unless the connection ends for good; what the worker says meanwhile is kept for later."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0 and not (until_heard and self._early):
            event = yield Receive(left)
            if isinstance(event, BrokerError):
                raise event
            if event is not None and not isinstance(event, Signal):
                self._early.append(event)

    def _on_reply(self, reply: AnyReply | TextReply) -> Steps:
        if isinstance(reply, TextReply):
            reply = self._from_text(reply.text)
        self._alive, self._reconnected, self._last_heard = True, False, self._clock()
        for part in self._assembly.take(reply):
            if isinstance(part, Restarted):
                self._first_token = None
            elif isinstance(part, Delta) and self._first_token is None:
                self._first_token = self._last_heard
            yield part

    def _from_text(self, text: str) -> Done | ErrorReply:
        ids = {"request_id": self.call.request_id, "session_id": self.call.session or text, "seq": 0}
        failure = Failure.from_sentence(text)
        return Done(text=text, **ids) if failure is None else ErrorReply.of(failure, **ids)  # type: ignore[arg-type]

    # --- silence ---

    def _patience(self) -> tuple[float, str]:
        """How long to wait for the next event, and what it would be."""
        if self._reconnected:
            again = self._last_sent + self._terms.first_timeout - self._clock()
            return min((again, _WORD), (self._deadline + _GRACE - self._clock(), "answer"))
        if not self._alive:
            first = self._last_sent + self._terms.first_timeout - self._clock()
            return min((first, "first sign of life"), (self.remaining, "answer"))
        total = self._deadline + _GRACE - self._clock()
        if not self._assembly.started:
            return total, "answer"
        silence = self._last_heard + self._terms.silence_timeout - self._clock()
        return min((silence, "next delta"), (total, "answer"))

    def _on_silence(self, what: str) -> Steps:
        """A lost message costs a repeat, which a worker that knows request ids answers without generating again."""
        if what != _WORD:
            if what == "answer" or not self._may_repeat():
                raise RequestTimeoutError(what, self._waited(what))
            self._repeats += 1
        self._last_heard = self._clock()
        yield from self._send()

    def _on_reconnect(self) -> Steps:
        """What was said while the connection was away is lost, the request itself perhaps too.

        The worker may come back later than we do, and is silent about repeats of what it is working on. So until
        there is a word of it, the request is repeated every now and then, and only the deadline ends that.
        """
        if not self._outstanding or self._outlet.repeats_are_safe:
            self._reconnected = self._outlet.repeats_are_safe
            yield from self._send()

    def _may_repeat(self) -> bool:
        safe = self._outlet.repeats_are_safe or not self._outstanding
        return safe and self._repeats < self._terms.retries

    def _waited(self, what: str) -> float:
        terms = self._terms
        return {"first sign of life": terms.first_timeout, "next delta": terms.silence_timeout}.get(what, terms.timeout)

    # --- the end of an attempt ---

    def _retry_or_raise(self, attempt: int, failure: Failure) -> Retry:
        error = RequestFailedError.of(failure)
        # What the caller has already seen of an answer cannot be unsaid, so a failure after that is final.
        # A deadline that has passed for the worker has passed for us too.
        final = not error.retryable or error.code == "deadline_exceeded" or self._assembly.started
        if final or attempt >= self._terms.retries:
            raise error
        delay = self._backoff.delay(attempt, error.retry_after)
        if delay >= self.remaining:
            raise error
        return Retry(error, delay)

    def _begin_again(self) -> None:
        self._lost += self._assembly.lost
        self._assembly = Assembly()
        self._early.clear()
        self._alive = self._reconnected = False

    def _whole_answer(self, done: Done) -> Answer:
        now = self._clock()
        return Answer(
            text=done.text,
            session_id=done.session_id,
            request_id=self.call.request_id,
            finish_reason=done.finish_reason,
            usage=done.usage,
            timing=done.timing,
            reasoning=done.reasoning,
            model=done.model,
            tool_calls=tuple(done.tool_calls or ()),
            lost=self._lost + self._assembly.lost,
            run=self._assembly.run,
            attempts=self._attempts,
            first_token_s=(self._first_token or now) - self._first_sent,
            total_s=now - self._first_sent,
        )
