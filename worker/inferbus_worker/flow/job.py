"""An admitted request: whose it is, where its replies go, until when, and its one terminal state."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from inferbus_client.contract.wire import Failure, FinishReason, Request
from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import Generation
from inferbus_worker.outcome import Answered, Timings
from inferbus_worker.replies.stream import ReplyStream
from inferbus_worker.state.memory.sessions import Claim, Exchange, SessionKey

PASSED_IN_QUEUE = Failure("deadline_exceeded", "It passed while the request waited in the queue.")


class Answer(NamedTuple):
    """What the engine said, and what of it enters the history.

    Attributes:
        forgotten: how many of the history's oldest exchanges were left out of the prompt; they go for good.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    exchange: Exchange
    reasoning: str | None = None
    forgotten: int = 0


class Job:
    """One admitted request. `end` is the only way out, and only its first caller's outcome counts.

    Args:
        request: what was asked.
        key: the session it belongs to.
        claim: the hold on that session; released by `end`.
        replies: where the replies go.
        admitted_at: seconds on the worker's monotonic clock.
        deadline: on the same clock, or None.
        on_end: told once, after the claim is free and before the terminal reply leaves.
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
        on_end: Callable[[Job, Answer | Failure], None],
    ) -> None:
        self.request = request
        self.key = key
        self.owner = key.owner(request.client_id)
        self.claim = claim
        self.replies = replies
        self.admitted_at = admitted_at
        self.deadline = deadline
        self.taken_at: float | None = None
        self.first_token_at: float | None = None
        #: Whether anything of the answer has come, a hidden thought included.
        self.answering = False
        self.outcome: Answer | Failure | None = None
        #: Where the time went; of a job that has ended.
        self.timings = Timings(0.0, None, 0.0)
        self._clock = clock
        self._on_end = on_end
        self._generation: Generation | None = None
        self._lock = threading.Lock()

    @property
    def ended(self) -> bool:
        return self.outcome is not None

    def take(self) -> bool:
        """A worker thread begins; False where the job ended while it waited, or ends now since its deadline passed."""
        self.taken_at = self._clock()
        if self.deadline is not None and self.taken_at >= self.deadline:
            self.end(PASSED_IN_QUEUE)
        return not self.ended

    def attach(self, generation: Generation) -> None:
        """Let `end` reach the generation, from whichever thread it comes."""
        with self._lock:
            self._generation = generation
            ended = self.ended
        if ended:
            generation.cancel()

    def delta(self, text: str, reasoning: str) -> None:
        """Pass on what is new, unless the job has ended: nothing follows a terminal reply."""
        with self._lock:
            if self.first_token_at is None:
                self.first_token_at = self._clock()
            if not self.ended:
                self.replies.delta(text, reasoning)

    def end(self, outcome: Answer | Failure) -> bool:
        """End the job: history, claim, accounting, terminal reply, and the engine if it still works on it.

        Returns:
            Whether this call was the first; later ones change nothing.
        """
        with self._lock:
            if self.ended:
                return False
            self.outcome = outcome
            self.timings = self._timings(self._clock())
            generation = self._generation
        # From the last step to the first; each is taken, whatever the ones before it raise.
        with ExitStack() as steps:
            if generation is not None and isinstance(outcome, Failure):
                steps.callback(generation.cancel)
            steps.callback(lambda: self.replies.end(self.terminal(outcome)))
            steps.callback(self._on_end, self, outcome)
            steps.callback(self.claim.release)
            if isinstance(outcome, Answer):
                self._commit(outcome)
        return True

    def _commit(self, answer: Answer) -> None:
        conversation = self.claim.conversation
        if self.request.system_prompt is not None:
            conversation.system_prompt = self.request.system_prompt
        conversation.forget(answer.forgotten)
        conversation.append(answer.exchange)

    def terminal(self, outcome: Answer | Failure) -> Answered | Failure:
        """What the terminal reply says of an outcome."""
        if isinstance(outcome, Failure):
            return outcome
        return Answered(outcome.text, outcome.finish_reason, outcome.usage, self.timings, outcome.reasoning)

    def _timings(self, ended: float) -> Timings:
        return Timings(
            queue=(self.taken_at or ended) - self.admitted_at,
            first_token=None if self.first_token_at is None else self.first_token_at - self.admitted_at,
            total=ended - self.admitted_at,
        )
