"""The end of a job in a group: its outcome is written to the store, and only then is its terminal reply said.

One script writes all that follows from an end: what the turn adds to its session, the memory of repeats, what it has
used of its budget, and the reply itself, as owed until it has left. Of two workers that have run a job one writes; the
other says nothing. While the store is away an outcome waits to be written: the lease may still be regained.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_worker.flow.endings import Endings, measure
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Answer, Job
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.prompt import system_tokens
from inferbus_worker.group.histories import Histories, Wanted
from inferbus_worker.group.holdings import GroupClaim, Holdings, Over
from inferbus_worker.group.reopening import Reopening
from inferbus_worker.group.writing import write_change, write_finished, write_terminal
from inferbus_worker.replies.address import Owed
from inferbus_worker.state.conversation import Conversation
from inferbus_worker.state.errors import StoreAwayError, StoreError
from inferbus_worker.state.protocols import Finished
from inferbus_worker.state.redis.courier import Courier
from inferbus_worker.state.redis.group import Committed, Ending, RedisGroup, Taken, Written

log = logging.getLogger("inferbus.endings")

#: Seconds between two tries to write an outcome to a store that does not answer.
_TRY_EVERY: Final = 0.2


class GroupEndings(Endings):
    """See `Endings`.

    Args:
        in_flight: the requests that have not ended.
        meter: counts.
        courier: reaches the store.
        group: knows its words.
        holdings: what this worker has.
        histories: where conversations are.
        reopening: makes a job of what was taken.
    """

    def __init__(
        self,
        *,
        in_flight: InFlight,
        meter: Meter,
        courier: Courier,
        group: RedisGroup,
        holdings: Holdings,
        histories: Histories,
        reopening: Reopening,
    ) -> None:
        self._in_flight = in_flight
        self._reopening = reopening
        self._courier = courier
        self._group = group
        self._holdings = holdings
        self._histories = histories
        self._gives_up = False
        self._over: list[Over] = []
        self._is_settling = False
        self._lock = threading.Lock()
        super().__init__(self._conclude, in_flight.remove, measure(meter))

    def give_up(self) -> None:
        """Wait no more for a store that does not answer: what is not written then, another worker runs again."""
        self._gives_up = True

    def left(self, owed: Owed) -> None:
        """A terminal reply has left. In the network thread; does not wait."""
        self._settle(self._holdings.left(owed))

    def _settle(self, over: Over | None) -> None:
        """Let the store forget a job. What comes while it answers goes together after that."""
        if over is None:
            return
        with self._lock:
            self._over.append(over)
            if self._is_settling:
                return
            self._is_settling = True
        self._settle_all()

    def _settle_all(self) -> None:
        with self._lock:
            over, self._over = self._over, []
            self._is_settling = bool(over)
        if over:
            self._courier.post(self._group.settle(over), lambda _: self._settle_all(), keeps=True)

    def end(self, taken: Taken, failure: Failure) -> None:
        """End a job that was taken out of the queue, and has not run. Does not wait."""
        job = self._reopening.ended(taken, failure)
        if job is None:
            self.discard(taken)
            return
        self._holdings.add(taken, job)
        self._in_flight.add(job)
        self.later(job)

    def discard(self, taken: Taken) -> None:
        """Let the store forget a job that nobody can read. Does not wait."""
        nothing = Ending(taken.job, taken.token, b"", None, None, None)
        settle = self._group.settle([(taken.job, taken.token, False)])
        self._courier.post(self._group.commit(nothing), lambda _: self._courier.post(settle, keeps=True))

    def _conclude(self, job: Job) -> None:
        claim = job.claim
        assert isinstance(claim, GroupClaim)  # noqa: S101 - every job of a group was taken
        if self._holdings.was_lost(job):
            job.replies.abandon()
            return
        outcome = job.terminal()
        sealed = job.replies.seal(outcome)
        owed = claim.owed
        sealed = sealed._replace(address=job.replies.address._replace(receipt=owed))
        after = self._after(job, claim)
        ending = Ending(
            *owed,
            write_terminal(sealed),
            None if isinstance(outcome, Failure) and outcome.retryable else self._remembered(job),
            None if after is None else _written(job, claim, after),
            _used_tokens(job),
        )
        committed = self._commit(ending)
        if committed is None:
            self._holdings.forget(owed)
            job.replies.abandon()
            return
        self._holdings.ended(owed.job, is_writing=after is not None)
        if after is not None and claim.session is not None and claim.change is not None:
            made = Wanted(claim.session, claim.version + 1)
            self._histories.write(made, claim.change, after, lambda: self._settle(self._holdings.written(owed)))
        self._histories.forget(committed.evicted)
        job.replies.end_with(sealed, outcome)

    def _remembered(self, job: Job) -> bytes:
        return write_finished(Finished(job.key.session, job.terminal()))

    def _after(self, job: Job, claim: GroupClaim) -> Conversation | None:
        """The conversation with what the turn has added; None where it adds nothing."""
        if not isinstance(job.outcome, Answer) or claim.session is None:
            return None
        claim.commit(job.outcome.change)
        return claim.conversation.after(job.outcome.change)

    def _commit(self, ending: Ending) -> Committed | None:
        """Write it; None where another worker has the job, or where nobody could be asked to the end."""
        call = self._group.commit(ending)
        while True:
            try:
                return self._courier.ask(call)
            except StoreAwayError:
                if self._gives_up:
                    return None
                time.sleep(_TRY_EVERY)
            except StoreError as error:
                log.error("an outcome could not be written: %s", error)  # noqa: TRY400
                return None


def _written(job: Job, claim: GroupClaim, after: Conversation) -> Written:
    assert claim.change is not None  # noqa: S101 - there is a conversation after it
    assert job.lease is not None  # noqa: S101 - it has answered
    system = after.system_prompt
    tokens = None if system is None else system_tokens(system, job.lease.slot.engine)
    return Written(claim.version + 1, write_change(claim.change), after.tokens, tokens, after.bytes)


def _used_tokens(job: Job) -> int | None:
    """What its budget is charged with in the end; None: as at admission, since what a failed one took is not known."""
    if isinstance(job.outcome, Answer):
        return job.outcome.usage.prompt_tokens + job.outcome.usage.completion_tokens
    return None if job.reached_engine else 0
