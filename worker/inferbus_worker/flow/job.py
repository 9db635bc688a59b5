"""An admitted request: whose it is, where its replies go, until when, and its one outcome.

Anybody may *mark* a job as failed, from any thread: a cancel, a deadline, a shutdown. That stops its engine and decides
what it ends with, and no more. What follows from an end (history, memory of retries, the claim, the terminal reply) is
written in one place, `endings`, by the thread that worked on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from inferbus_client.contract.wire import Failure, FinishReason, Request
from inferbus_worker.chat import CallDelta, ToolCall, Usage
from inferbus_worker.engines.base import Generation
from inferbus_worker.engines.slots import Lease
from inferbus_worker.outcome import Answered, Timings
from inferbus_worker.replies.stream import ReplyStream
from inferbus_worker.state.conversation import Change
from inferbus_worker.state.keys import RetryKey, SessionKey
from inferbus_worker.state.protocols import Charge, Claim

PASSED_IN_QUEUE: Final = Failure("deadline_exceeded", "It passed while the request waited in the queue.")


class Answer(NamedTuple):
    """What the engine said, and what of the turn enters the history."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    change: Change
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


class Job:
    """One admitted request. Its first outcome counts, whoever has it.

    Args:
        request: what was asked.
        key: the session it belongs to.
        claim: the hold on that session.
        replies: where the replies go.
        admitted_at: seconds on the worker's monotonic clock.
        deadline: on the same clock, or None.
        retry: what a repeat of it is known by.
        model: the key of the model that it is for.
        clock: that clock.

    Attributes:
        charge: the tokens that it has been charged with, where there is a budget.
        lease: the place that it runs in; at the end, the one that answered.
        attempts: the names of the places that have begun to answer it, one for each time.
        may_repeat_at: from when on a place may have it that has failed it before.
        waits_since: when it last came into the queue.
        look_at: when somebody has to see whether it waits in vain; None: never.
        first_token_at: when the first token came that its requester was sent.
        answering: whether anything of the answer has come, a hidden thought included.
        reached_engine: whether it has been asked.
        timings: where the time went; of a job that has an outcome.
    """

    def __init__(
        self,
        *,
        request: Request,
        key: SessionKey,
        claim: Claim,
        replies: ReplyStream,
        admitted_at: float,
        deadline: float | None,
        clock: Callable[[], float],
        retry: RetryKey | None = None,
        model: str = "",
    ) -> None:
        self.request = request
        self.key = key
        self.owner = key.owner(request.client_id)
        self.claim = claim
        self.replies = replies
        self.admitted_at = admitted_at
        self.deadline = deadline
        self.retry = retry
        self.model = model
        self.lease: Lease | None = None
        self.attempts: list[str] = []
        self.may_repeat_at = 0.0
        self.look_at = deadline
        self.waits_since = admitted_at
        self.charge: Charge | None = None
        self.taken_at: float | None = None
        self.first_token_at: float | None = None
        self.answering = self.reached_engine = False
        self.outcome: Answer | Failure | None = None
        self.timings = Timings(0.0, None, 0.0)
        self._clock = clock
        self._generation: Generation | None = None
        #: Whether what follows from the end is written, or being written.
        self.is_finished = False
        self._lock = threading.Lock()

    def wait_until(self, slot_by: float) -> None:
        """It waits for a slot until then, or for its deadline, if that is sooner."""
        self.look_at = slot_by if self.deadline is None else min(self.deadline, slot_by)

    def take(self) -> bool:
        """A worker thread begins; False where there is nothing to do: it has been marked, or its deadline passed."""
        now = self._clock()
        if self.taken_at is None:
            self.taken_at = now
        if self.deadline is not None and now >= self.deadline:
            self.settle(PASSED_IN_QUEUE)
        return self.outcome is None

    def attach(self, generation: Generation) -> None:
        """Let a mark reach the generation, from whichever thread it comes."""
        with self._lock:
            self._generation, self.reached_engine = generation, True
            marked = self.outcome is not None
        if marked:
            generation.cancel()

    def detach(self) -> bool:
        """Hear no more of an attempt that has failed, so that there may be another one; False where some was shown."""
        with self._lock:
            if self.first_token_at is not None:
                return False
            self._generation = self.lease = None
            self.answering = self.reached_engine = False
        return True

    def let_go(self) -> None:
        """The generation is over. It knows this job, to be heard: such rings cost the collector a tenth of all time."""
        self._generation = None

    def heard(self, lease: Lease, text: str, reasoning: str, calls: Sequence[CallDelta] = ()) -> None:
        """Pass on what is new of the answer. In the engine's thread: this notes, and never waits.

        Args:
            lease: of the attempt that says it; one that has been given up may still be on its way here.
            text: of the answer.
            reasoning: before it.
            calls: of tools, in it.
        """
        now = self._clock()
        if lease is not self.lease:
            return
        lease.grows(now)
        if not self.answering:
            self.answering, lease.first_token_at = True, now
        if self.request.stream and (text or reasoning or calls) and self._is_shown(lease, now):
            self.replies.delta(text, reasoning, calls)

    def _is_shown(self, lease: Lease, now: float) -> bool:
        """Whether the requester sees it: from then on there is no other attempt."""
        if self.first_token_at is None:
            with self._lock:  # against `detach`
                if lease is self.lease:
                    self.first_token_at = now
        return lease is self.lease

    def mark(self, failure: Failure, *, finishes: bool = False) -> bool:
        """Let the job end with a failure, and its engine stop. From any thread.

        Args:
            failure: what it ends with.
            finishes: whether the caller writes what follows; else somebody else does.

        Returns:
            Whether this came before any other outcome.
        """
        if not self.settle(failure, finishes=finishes):
            return False
        generation = self._generation
        if generation is not None:
            generation.cancel()
        return True

    def expire(self) -> bool:
        """Mark a job whose deadline passed while it waited."""
        return self.mark(PASSED_IN_QUEUE)

    def settle(self, outcome: Answer | Failure, *, finishes: bool = False) -> bool:
        """Decide what the job ends with, and that the caller `finishes` it; whether nothing else has before."""
        with self._lock:
            if self.outcome is not None:
                return False
            self.outcome, self.is_finished = outcome, finishes
            ended = self._clock()
            self.timings = Timings(
                queue=(ended if self.taken_at is None else self.taken_at) - self.admitted_at,
                first_token=None if self.first_token_at is None else self.first_token_at - self.admitted_at,
                total=ended - self.admitted_at,
            )
        return True

    def finish(self) -> bool:
        """Whether the caller is the one to write what follows from the end: the first who asks."""
        with self._lock:
            first, self.is_finished = not self.is_finished, True
        return first

    def terminal(self) -> Answered | Failure:
        """What the terminal reply says. There must be an outcome."""
        outcome = self.outcome
        if isinstance(outcome, Answer):
            said = (outcome.text, outcome.finish_reason, outcome.usage, self.timings, outcome.reasoning)
            model = None if self.lease is None else self.lease.slot.model.name
            return Answered(*said, model, outcome.tool_calls)
        return outcome or Failure("engine_error")
