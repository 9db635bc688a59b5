"""What the store says to a request: one type for every answer, so that whoever reads one can forget none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple


class Admitted(NamedTuple):
    """It waits, unconfirmed.

    Attributes:
        position: how many go before it, rather too many than too few.
    """

    position: int


class Granted(NamedTuple):
    """Nobody is before it, and its admitter has a slot free: it is his as soon as he confirms it.

    Attributes:
        version: of its session's conversation; 0: there is none yet.
    """

    version: int


class Repeat(NamedTuple):
    """The same request is in flight."""


class Known(NamedTuple):
    """The same request has ended; this one counts in the windows all the same.

    Attributes:
        outcome: what was remembered of its end.
    """

    outcome: bytes


class Limited(NamedTuple):
    """A rate limit is reached; it counts in no window.

    Attributes:
        wait: seconds until the last of the windows that are full has room.
    """

    wait: float


class Busy(NamedTuple):
    """Its session has a request in flight."""


class NoRoom(NamedTuple):
    """The queue has none for it."""


class TooLate(NamedTuple):
    """More go before it than its deadline allows."""


class TooManyForms(NamedTuple):
    """As many answers in a given form as may be are under way for its model."""


class OverBudget(NamedTuple):
    """Its session's token budget is spent.

    Attributes:
        wait: seconds until enough of it is free again.
    """

    wait: float


class NeverFits(NamedTuple):
    """It alone is over the whole token budget.

    Attributes:
        prompt_tokens: what its prompt can take.
        answer_tokens: what its answer can.
    """

    prompt_tokens: int
    answer_tokens: int


class Tombstoned(NamedTuple):
    """A cancel came before it."""


class Stale(NamedTuple):
    """It reached the store later than its admitter wanted to wait; nothing was done."""


Verdict = (
    Admitted
    | Granted
    | Repeat
    | Known
    | Limited
    | Busy
    | NoRoom
    | TooLate
    | TooManyForms
    | OverBudget
    | NeverFits
    | Tombstoned
    | Stale
)

_READ: Final[Mapping[bytes, Callable[..., Verdict]]] = {
    b"admitted": Admitted,
    b"granted": Granted,
    b"repeat": Repeat,
    b"known": Known,
    b"limited": lambda wait: Limited(wait / 1000),
    b"busy": Busy,
    b"no room": NoRoom,
    b"too late": TooLate,
    b"forms": TooManyForms,
    b"over budget": lambda wait: OverBudget(wait / 1000),
    b"never fits": NeverFits,
    b"tombstoned": Tombstoned,
    b"stale": Stale,
}


def read_verdict(answer: Any) -> Verdict:
    """What `admit` said."""
    kind, *fields = answer
    return _READ[kind](*fields)
