"""What a worker holds of the store's jobs, and what it writes at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple


class Taken(NamedTuple):
    """A job that this worker holds from now on.

    Attributes:
        job: its id.
        token: what proves the hold; unique for every take.
        run: how often it was begun before.
        body: as its admitter wrote it; empty once its reply is owed.
        session: what it has claimed; None: it is stateless.
        version: of the session's conversation; 0: there is none yet.
        waited: seconds since its admission.
        deadline: in seconds from now, perhaps passed; None: it has none.
        owed: its terminal reply, where only that is left to be sent.
        is_poison: whether too many workers were lost over it: it is to be ended, not run.
        is_cancelled: whether it has been cancelled.
        model: which lane it came from: another one than its admission's, where that was put in its place.
    """

    job: str
    token: str
    run: int
    body: bytes
    session: str | None
    version: int
    waited: float
    deadline: float | None
    owed: bytes | None
    is_poison: bool
    is_cancelled: bool = False
    model: str = ""


class Took(NamedTuple):
    """What `take` brought.

    Attributes:
        jobs: in the order of their turns.
        again_in: seconds until jobs that wait for another worker are for everybody; None: there are none.
    """

    jobs: Sequence[Taken]
    again_in: float | None


class Confirmed(NamedTuple):
    """What became of the jobs that a worker has admitted; those in none of these wait, or are granted to it.

    Attributes:
        gone: have been dropped, since this came too late for them.
        cancelled: were granted to this worker, and shall not run.
        elsewhere: another worker has admitted the same request anew, and answers it.
    """

    gone: Sequence[str] = ()
    cancelled: Sequence[str] = ()
    elsewhere: Sequence[str] = ()


class Written(NamedTuple):
    """What a turn changes in its session's record.

    Attributes:
        version: the new one.
        pending: the change, until the history has it. Where one server has everything that is at once.
        tokens: of the whole history from now on.
        system: tokens of the session's own system prompt; None: as before.
        bytes: that the whole history takes, about.
    """

    version: int
    pending: bytes
    tokens: int
    system: int | None
    bytes: int


class Turn(NamedTuple):
    """What a turn changes in its session's history; see `Conversations.append`.

    Attributes:
        header: stands in the place of the one before.
        forgotten: how many of the oldest messages go.
        dropped: how many of the newest go.
        resets: whether all that was before goes.
        messages: the new ones, oldest first.
    """

    header: bytes
    forgotten: int
    dropped: int
    resets: bool
    messages: Sequence[bytes]


class Ending(NamedTuple):
    """The end of a job.

    Attributes:
        job: which.
        token: of its take.
        owed: the terminal reply, as it is sent.
        outcome: what a repeat of the request is told; None: nothing, it shall run.
        change: of its conversation; None: none. The claim ends in any case.
        used_tokens: what it really took of the token budget; None: what it was charged stays.
        session: whose conversation that is.
        turn: the same change, for its history.
    """

    job: str
    token: str
    owed: bytes
    outcome: bytes | None = None
    change: Written | None = None
    used_tokens: int | None = None
    session: str | None = None
    turn: Turn | None = None


class Became(IntEnum):
    """What became of the change that a turn has made."""

    NOTHING = 0  # there was none, or its session has gone on without it
    RECORDED = 1  # the session's record has it, and its history has to follow
    WRITTEN = 2  # both have it
    UNKNOWN = 3  # the store knows nothing of the job, and has written nothing


class Committed(NamedTuple):
    """An end that is written.

    Attributes:
        evicted: sessions that had to go for want of room; their histories are to be deleted.
        change: what became of it.
    """

    evicted: Sequence[str]
    change: Became = Became.NOTHING


class Renewed(NamedTuple):
    """What became of the jobs that a worker holds.

    Attributes:
        lost: are somebody else's by now, or wait for somebody.
        cancelled: run here and shall not.
        unknown: the store knows nothing of them, or not that they were confirmed: nobody will run them.
    """

    lost: Sequence[str]
    cancelled: Sequence[str]
    unknown: Sequence[str] = ()


class Reaped(NamedTuple):
    """What was left behind.

    Attributes:
        requeued: how many jobs will run again.
        dropped: how many were never confirmed.
        mine: are this worker's from now on: replies to be sent, and jobs that nobody survives.
        evicted: sessions that nobody came back to; their histories are to be deleted.
    """

    requeued: int
    dropped: int
    mine: Sequence[Taken]
    evicted: Sequence[str] = ()


class Cancelled(NamedTuple):
    """What a cancel found.

    Attributes:
        mine: waited, and are this worker's to end.
        running: are marked, and their workers hear of it when they renew; among them what is not confirmed yet.
    """

    mine: Sequence[Taken]
    running: Sequence[str]


def read_names(names: Sequence[bytes]) -> tuple[str, ...]:
    """Names in an answer."""
    return tuple(name.decode() for name in names)


def read_taken(rows: Sequence[Sequence[Any]], token: str) -> list[Taken]:
    """Jobs as `common.lua` tells them."""
    return [
        Taken(
            job=job.decode(),
            token=token,
            run=int(run),
            body=body,
            session=session.decode() or None,
            version=int(version),
            waited=max(int(waited), 0) / 1000,
            deadline=None if left == b"" else int(left) / 1000,
            owed=owed,
            is_poison=bool(poison),
            is_cancelled=bool(cancelled),
            model=model.decode(),
        )
        for job, run, body, session, version, waited, left, owed, poison, cancelled, model in rows
    ]
