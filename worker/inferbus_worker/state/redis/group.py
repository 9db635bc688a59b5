"""What a worker asks of the store that its group shares: every question as a `Call`, and how to read the answer.

Nothing here sends anything. The scripts decide (see `scripts`): each as a whole or not at all, by the store's clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.redis.bids import Bid, Charging, arguments, limits, milliseconds, short
from inferbus_worker.state.redis.calls import Argument, Call
from inferbus_worker.state.redis.conversations import Conversations
from inferbus_worker.state.redis.fleet import Fleet, Group, Member, Sizes
from inferbus_worker.state.redis.holdings import (
    Became,
    Cancelled,
    Committed,
    Confirmed,
    Ending,
    Reaped,
    Renewed,
    Taken,
    Took,
    Turn,
    Written,
    read_names,
    read_taken,
)
from inferbus_worker.state.redis.plan import lane_name, plan
from inferbus_worker.state.redis.scripted import nothing
from inferbus_worker.state.redis.verdicts import (
    Admitted,
    Busy,
    Granted,
    Known,
    Limited,
    NeverFits,
    NoRoom,
    OverBudget,
    Repeat,
    Stale,
    Tombstoned,
    TooLate,
    TooManyForms,
    Verdict,
    read_verdict,
)

__all__ = [
    "Admitted",
    "Became",
    "Bid",
    "Busy",
    "Cancelled",
    "Charging",
    "Committed",
    "Confirmed",
    "Ending",
    "Granted",
    "Group",
    "Known",
    "Limited",
    "Member",
    "NeverFits",
    "NoRoom",
    "OverBudget",
    "Reaped",
    "RedisGroup",
    "Renewed",
    "Repeat",
    "Sizes",
    "Stale",
    "Taken",
    "Tombstoned",
    "TooLate",
    "TooManyForms",
    "Took",
    "Turn",
    "Verdict",
    "Written",
]

#: Milliseconds for which a session's next turn waits for the worker that has its conversation in its cache.
_PREFERENCE_MS: Final = 50
#: Milliseconds for which a cancel that found nothing is remembered.
_TOMB_MS: Final = 3000
#: A time in ms that never comes.
_ALWAYS: Final = 2**53
#: Waiting jobs that one look takes out.
_MOST_OVERDUE: Final = 64


class RedisGroup(Conversations, Fleet):
    """One worker's part of its group.

    Args:
        group: workers of one group share everything, those of two nothing.
        instance: one life of this worker; unique.
        worker: its name.
        projects: that it knows.
        lanes: the models of each of them, by their keys.
        queue_size: how many requests may wait, of all projects together.
        ageing: seconds of waiting that make up for one step of priority.
        lease: seconds that a job is held without being renewed; an admitter has as long to confirm.
        retry_memory: seconds for which outcomes are remembered.
        session_ttl: seconds after its last turn that a session is kept.
        max_sessions: that are kept; the least recently used goes first.
        max_history_bytes: that all of them may have together.
        max_attempts: a job over which so many workers were lost is run no more.
        is_spread: whether histories lie on other servers than all else, as in a Cluster.
    """

    def __init__(
        self,
        group: str,
        instance: str,
        worker: str,
        *,
        projects: Mapping[str, ProjectSettings],
        lanes: Mapping[str, Sequence[str]],
        queue_size: int,
        ageing: float,
        lease: float,
        retry_memory: float,
        session_ttl: float,
        max_sessions: int,
        max_history_bytes: int,
        max_attempts: int,
        is_spread: bool = False,
    ) -> None:
        super().__init__(group, instance, worker, lease=lease, session_ttl=session_ttl)
        self._plan = plan(projects, lanes, queue_size, ageing)
        self._retry_ms = milliseconds(retry_memory)
        self._max_sessions = max_sessions
        self._max_history_bytes = max_history_bytes
        self._max_attempts = max_attempts
        self._confirms = itertools.count(1)
        self.is_spread = is_spread

    def admit(self, bid: Bid, not_after: int, token: str | None = None) -> Call[Verdict]:
        """Decide on a request. The same id again, while it waits or runs, hears the same.

        Args:
            bid: the request.
            not_after: the store's time in ms; later than that nothing is done, and the answer is `Stale`.
            token: what will prove the hold if it is granted to this worker, which has a slot free for it; never used
                before for another round. None: it has none.
        """
        lane = lane_name(bid.project, bid.model)
        admitter = ("" if token is None else token, self.instance)
        args = (*arguments(bid, lane), self._lease_ms, int(bid.may_repeat), *admitter, *limits(bid))
        return self._call("admit", self._plan, not_after, *args, read=read_verdict)

    def confirm(self, jobs: Sequence[str], *, rings: bool = True) -> Call[Confirmed]:
        """Let everybody take what was admitted, and hold from now on what was granted.

        To be sent in the order in which they are made; the same again is answered as before.

        Args:
            jobs: which.
            rings: whether others are woken; not where a `take` for the same models comes right behind this.
        """
        number = next(self._confirms)
        head = (int(rings), self.instance, number, self._lease_ms)
        return self._call("confirm", *head, *jobs, read=_read_confirmed)

    def withdraw(self, jobs: Sequence[str]) -> Call[None]:
        """Take back what was admitted and not confirmed."""
        return self._call("withdraw", *jobs, read=nothing)

    def take(self, token: str, wanted: Sequence[tuple[str, int]], not_after: int = _ALWAYS) -> Call[Took]:
        """Take jobs in the order of turns.

        Args:
            token: what will prove the hold; never used before.
            wanted: models and how many slots each has free here.
            not_after: the store's time in ms; later than that nothing is taken.
        """

        def read(answer: Any) -> Took:
            rows, again_in = answer
            return Took(read_taken(rows, token), None if again_in == b"" else again_in / 1000)

        pairs = [part for model, count in wanted for part in (model, count)]
        return self._call("take", self._plan, *self._hold(token), _PREFERENCE_MS, not_after, *pairs, read=read)

    def commit(self, ending: Ending) -> Call[Committed | None]:
        """Write the end of a job, once; None: too late, somebody else has it. The same again is answered as before."""
        change = ending.change
        written: tuple[Argument, ...] = ("",) * 5
        keys: tuple[str, ...] = (self.prefix,)
        if change is not None:
            system = "" if change.system is None else change.system
            written = (change.version, change.pending, change.tokens, system, change.bytes)
            if ending.turn is not None and ending.session is not None and not self.is_spread:
                keys = (self.prefix, self._history(ending.session))
                written = (*written, *self._turn(ending.turn))
        args = (
            *(ending.job, ending.token, self.instance, ending.owed),
            b"" if ending.outcome is None else b"=" + ending.outcome,
            *(self._retry_ms, self._lease_ms, self._max_sessions, self._max_history_bytes),
            "" if ending.used_tokens is None else ending.used_tokens,
            *written,
        )
        return Call("commit", keys, args, _read_committed)

    def adopt(self, job: str, token: str) -> Call[bool]:
        """Whether a worker may answer what it holds and the store has forgotten; the same again says the same."""
        return self._call("adopt", job, token, read=bool)

    def settle(self, held: Iterable[tuple[str, str, bool]]) -> Call[None]:
        """The terminal replies have left: job, token, and whether the change lies in the history, too."""
        args = [part for job, token, is_written in held for part in (job, token, int(is_written))]
        return self._call("settle", *args, read=nothing)

    def renew(self, held: Iterable[tuple[str, str]], not_after: int = _ALWAYS) -> Call[Renewed]:
        """Hold on to all of these, each a job and its token.

        Args:
            held: all that this worker has; what else is leased to it goes back in time.
            not_after: the store's time in ms; later than that nothing goes back.
        """
        args = [part for pair in held for part in pair]
        return self._call("renew", self.instance, self._lease_ms, not_after, *args, read=_read_renewed)

    def give_back(self, held: Iterable[tuple[str, str]]) -> Call[None]:
        """Let others run these, each a job and its token, before all that waits."""
        return self._call("give_back", *(part for pair in held for part in pair), read=nothing)

    def reap(self, token: str, most: int = 64, not_after: int = _ALWAYS) -> Call[Reaped]:
        """Take up what was left behind, `most` of each kind; nothing after that time, the store's in ms."""

        def read(answer: Any) -> Reaped:
            requeued, dropped, rows, evicted = answer
            return Reaped(requeued, dropped, read_taken(rows, token), read_names(evicted))

        args = (*self._hold(token), most, self._max_attempts, self._session_ms, not_after)
        return self._call("reap", *args, read=read)

    def overdue(self, token: str) -> Call[list[Taken]]:
        """Waiting jobs whose look has come, for this worker to end or to put back."""
        return self._call("overdue", *self._hold(token), _MOST_OVERDUE, read=lambda rows: read_taken(rows, token))

    def put_back(self, job: str, token: str, model: str, look_in: float | None) -> Call[bool]:
        """Let an overdue job wait on, perhaps for another model; False where it is not held any more.

        Args:
            job: which.
            token: of the call that took it out.
            model: which one it waits for from now on.
            look_in: seconds until somebody must look again; None: never.
        """
        look = "" if look_in is None else milliseconds(look_in)
        return self._call("put_back", self._plan, job, token, model, look, read=bool)

    def cancel(self, flying: str, names: str | None, token: str) -> Call[Cancelled]:
        """Stop what a session has under way.

        Args:
            flying: the session as topics name it.
            names: the request id of the only one that is meant; None: all.
            token: what will prove the hold on what is taken out of the queue.
        """

        def read(answer: Any) -> Cancelled:
            mine, running = answer
            return Cancelled(read_taken(mine, token), read_names(running))

        args = (*self._hold(token), _TOMB_MS, short(flying), short(names or ""))
        return self._call("cancel", *args, read=read)

    def _hold(self, token: str) -> tuple[Argument, ...]:
        return self.instance, token, self._lease_ms


def _read_committed(answer: Any) -> Committed | None:
    return None if answer is None else Committed(read_names(answer[0]), Became(answer[1]))


def _read_confirmed(answer: Any) -> Confirmed:
    return Confirmed(*map(read_names, answer))


def _read_renewed(answer: Any) -> Renewed:
    return Renewed(*map(read_names, answer))
