"""What a request brings to the store: all that admission decides on."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from math import ceil
from typing import Final, NamedTuple

from inferbus_worker.state.redis.calls import Argument

#: Names of strangers longer than this become a digest: keys stay small, whatever they say.
_LONGEST_NAME: Final = 100


class Charging(NamedTuple):
    """What a request is charged with in its session's token budget.

    Attributes:
        question: tokens of what it asks.
        system: tokens of the system prompt that it has, unless its session has one of its own.
        answer: tokens of the longest answer.
        history_most: tokens of the history that are sent at most.
        limit: tokens that a session has in a window.
        window: in seconds.
        has_own_system: whether the request brings a system prompt, which `system` counts then in any case.
        context: tokens that a prompt and its answer have at most together; None: any number.
    """

    question: int
    system: int
    answer: int
    history_most: int
    limit: int
    window: float
    has_own_system: bool = False
    context: int | None = None


class Bid(NamedTuple):
    """One request, as the store sees it.

    Attributes:
        job: its id, unique, sorting by the time of its making.
        project: whose.
        model: which one it is for, by its key.
        owner: who asks; None: nobody in particular.
        session: what it claims; None: it is stateless.
        flying: its session as topics name it, for cancels.
        names: its request id, for cancels; empty: none.
        retry: what a repeat of it is known by.
        windows: of every rate limit the key, the limit and the seconds.
        body: what another worker needs to run it; the store does not look into it.
        deadline: in seconds from now.
        slot_by: in seconds from now, when somebody must see whether it got a slot.
        most_ahead: it is too late where more go before it.
        form_limit: it has a form, and so many may be under way for its model.
        charge: what it costs, where there is a token budget.
        may_repeat: whether it may be a repeat; else `retry` only says what its own repeats are known by.
    """

    job: str
    project: str
    model: str
    owner: str | None
    session: str | None
    flying: str
    names: str
    retry: str | None
    windows: tuple[tuple[str, int, float], ...]
    body: bytes
    deadline: float | None = None
    slot_by: float | None = None
    most_ahead: int | None = None
    form_limit: int | None = None
    charge: Charging | None = None
    may_repeat: bool = True


def short(name: str) -> str:
    """A name as keys have it: itself, or where it is long, a digest; of that, itself again."""
    if len(name) <= _LONGEST_NAME:
        return name
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def milliseconds(seconds: float) -> int:
    """As the store counts them; a fraction counts as a whole one."""
    return ceil(seconds * 1000)


def arguments(bid: Bid, lane: str) -> Iterator[Argument]:
    """A bid as `admit.lua` reads it."""
    yield from (bid.job, lane, bid.model)
    yield "" if bid.owner is None else "=" + short(bid.owner)
    yield from (short(bid.session or ""), short(bid.flying), short(bid.names), short(bid.retry or ""), bid.body)
    for seconds in (bid.deadline, bid.slot_by):
        yield "" if seconds is None else milliseconds(seconds)
    for most in (bid.most_ahead, bid.form_limit):
        yield "" if most is None else most


def limits(bid: Bid) -> Iterator[Argument]:
    """What follows: charge and windows."""
    charge = bid.charge
    if charge is None:
        yield from ("",) * 8
    else:
        yield from (charge.question, charge.system, charge.answer, charge.history_most, charge.limit)
        yield milliseconds(charge.window)
        yield int(charge.has_own_system)
        yield "" if charge.context is None else charge.context
    for key, limit, seconds in bid.windows:
        yield from (short(key), limit, milliseconds(seconds))
