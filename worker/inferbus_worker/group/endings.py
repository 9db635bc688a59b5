"""The end of a job in a group: its outcome is written to the store, and only then is its terminal reply said.

One script writes all that follows from an end: what the turn adds to its session, the memory of repeats, what it has
used of its budget, and the reply itself, as owed until it has left. Of two workers that have run a job one writes; the
other says nothing. No thread waits for that: while the store is away the outcome does, with the courier, since the
lease may still be regained.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import NamedTuple

from inferbus_client.contract.wire import Failure
from inferbus_worker.flow.endings import Endings, measure
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Answer, Job
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.prompt import system_tokens
from inferbus_worker.group.figures import Figures
from inferbus_worker.group.histories import Histories, Wanted
from inferbus_worker.group.holdings import GroupClaim, Holdings, Over
from inferbus_worker.group.reopening import Reopening
from inferbus_worker.group.writing import Ended, write_change, write_ended, write_terminal, write_turn
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.address import Owed
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.state.conversation import Conversation
from inferbus_worker.state.errors import StoreAnswerError, StoreError
from inferbus_worker.state.protocols import Finished
from inferbus_worker.state.redis.courier import Courier
from inferbus_worker.state.redis.group import Became, Committed, Ending, RedisGroup, Taken, Written

log = logging.getLogger("inferbus.endings")


class _End(NamedTuple):
    """How a job ends here, if the store agrees.

    Attributes:
        after: the conversation with what its turn has added; None where it adds nothing.
    """

    job: Job
    outcome: Answered | Failure
    sealed: Outgoing
    ending: Ending
    after: Conversation | None


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
        figures: know the store's clock.
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
        figures: Figures,
    ) -> None:
        self._in_flight = in_flight
        self._figures = figures
        self._reopening = reopening
        self._courier = courier
        self._group = group
        self._holdings = holdings
        self._histories = histories
        self._over: list[Over] = []
        self._is_settling = False
        self._lock = threading.Lock()
        self._measured = measure(meter)
        super().__init__(self._conclude)

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
            settle = self._group.settle(over)
            self._courier.post(settle, lambda _: self._settle_all(), lambda _: self._settle_all(), keeps=True)

    def end(self, taken: Taken, failure: Failure) -> None:
        """End a job that was taken out of the queue, and has not run. Does not wait."""
        job = self._reopening.ended(taken, failure)
        if job is None:
            self.discard(taken)
            return
        self._holdings.add(taken, job)
        self._in_flight.add(job)
        self.write(job)

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
            self._in_flight.remove(job)
            return
        outcome = job.terminal()
        sealed = job.replies.seal(outcome)
        owed = claim.owed
        sealed = sealed._replace(address=job.replies.address._replace(receipt=owed))
        self._commit(_End(job, outcome, sealed, *self._ending(job, claim, sealed, outcome)))

    def _commit(self, end: _End) -> None:
        commit = self._group.commit(end.ending)
        self._courier.post(commit, partial(self._committed, end), partial(self._failed, end), keeps=True)

    def _committed(self, end: _End, committed: Committed | None) -> None:
        """The store has decided whose outcome counts. In the courier's thread."""
        job, owed, after = end.job, Owed(end.ending.job, end.ending.token), end.after
        if committed is None or self._holdings.was_lost(job):  # or it was given back meanwhile, to be said by others
            self._over_here(end)
            return
        if committed.change is Became.UNKNOWN:
            adopt = self._group.adopt(*owed)
            if self._holdings.keep(owed.job):
                self._courier.post(adopt, partial(self._adopted, end), lambda _: self._over_here(end), keeps=True)
            else:
                self._over_here(end)
            return
        follows = committed.change is Became.RECORDED
        self._holdings.ended(owed.job, is_writing=follows)
        if after is not None and end.ending.session is not None and end.ending.change is not None:
            made = Wanted(end.ending.session, end.ending.change.version)
            if follows and isinstance(job.claim, GroupClaim) and job.claim.change is not None:
                change = job.claim.change
                self._histories.write(made, change, after, lambda: self._settle(self._holdings.written(owed)))
            elif committed.change is Became.WRITTEN:
                self._histories.keep(*made, after)
        self._histories.forget(committed.evicted)
        self._say(end)

    def _adopted(self, end: _End, is_ours: bool) -> None:  # noqa: FBT001 - the store's answer
        """The store has forgotten a job that has ended here."""
        if not is_ours:
            self._over_here(end)
            return
        log.warning("the store has forgotten a request that ran here: it is answered, and nothing remembers it")
        self._holdings.ended(end.ending.job, is_writing=False)
        self._say(end)

    def _say(self, end: _End) -> None:
        end.job.replies.end_with(end.sealed, end.outcome)
        self._in_flight.remove(end.job)
        self._measured(end.job)

    def _failed(self, end: _End, error: StoreError) -> None:
        """It will not be written: the store cannot do what it is asked, or this worker leaves, and others run it."""
        if not isinstance(error, StoreAnswerError) or end.ending.change is None:
            log.debug("an outcome was not written: %s", error)
            self._over_here(end)
            return
        # Nobody could write this turn: its requester hears that, and its session stays as it was.
        log.error("a turn could not be written to its session: %s", error)
        failure = Failure("engine_error")
        sealed = end.job.replies.seal(failure)._replace(address=end.sealed.address)
        ending = Ending(end.ending.job, end.ending.token, write_terminal(sealed))
        self._commit(_End(end.job, failure, sealed, ending, None))

    def _over_here(self, end: _End) -> None:
        """Another worker has the job, or will."""
        self._holdings.was_lost(end.job)  # it may have been, while its outcome was on its way
        self._holdings.forget(Owed(end.ending.job, end.ending.token))
        end.job.replies.abandon()
        self._in_flight.remove(end.job)

    def _ending(
        self, job: Job, claim: GroupClaim, sealed: Outgoing, outcome: Answered | Failure
    ) -> tuple[Ending, Conversation | None]:
        """What is to be written, and the conversation with what the turn has added; None where it adds nothing."""
        remembers = claim.may_repeat and not (isinstance(outcome, Failure) and outcome.retryable)
        ending = Ending(
            *claim.owed,
            write_terminal(sealed),
            _remembered(job, outcome) if remembers else None,
            used_tokens=_used_tokens(job),
        )
        if not isinstance(job.outcome, Answer) or claim.session is None:
            return ending, None
        # Of a session with no record something may still lie in its history, from before it was forgotten.
        change = job.outcome.change._replace(resets=not claim.version)
        claim.commit(change)
        after = claim.conversation.after(change)
        turn = write_turn(change, after)
        return ending._replace(change=self._written(job, claim, after), session=claim.session, turn=turn), after

    def _written(self, job: Job, claim: GroupClaim, after: Conversation) -> Written:
        assert claim.change is not None  # noqa: S101 - there is a conversation after it
        assert job.lease is not None  # noqa: S101 - it has answered
        system = after.system_prompt
        tokens = None if system is None else system_tokens(system, job.lease.slot.engine)
        # Where one server has everything the history is never behind.
        pending = write_change(claim.change) if self._group.is_spread else b""
        # Versions never begin anew: what others have at hand, or the store, of a session that was forgotten is older.
        version = claim.version + 1 if claim.version else self._figures.not_after(0)
        return Written(version, pending, after.tokens, tokens, after.bytes)


def _remembered(job: Job, outcome: Answered | Failure) -> bytes:
    address = job.replies.address
    return write_ended(Ended(Finished(job.key.session, outcome), address.request_id, address.run, job.replies.next_seq))


def _used_tokens(job: Job) -> int | None:
    """What its budget is charged with in the end; None: as at admission, since what a failed one took is not known."""
    if isinstance(job.outcome, Answer):
        return job.outcome.usage.prompt_tokens + job.outcome.usage.completion_tokens
    return None if job.reached_engine else 0
