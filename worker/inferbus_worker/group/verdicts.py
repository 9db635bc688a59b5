"""What a requester hears when the store has said no, in the contract's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_worker.admission.refusals import TOO_LATE, rate_limited, too_many_forms, without_room
from inferbus_worker.admission.token_budget import never_fits
from inferbus_worker.chat import Usage
from inferbus_worker.flow.meter import Meter
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.state.redis.bids import Bid
from inferbus_worker.state.redis.verdicts import (
    Busy,
    Limited,
    NeverFits,
    NoRoom,
    OverBudget,
    Tombstoned,
    TooLate,
    TooManyForms,
    Verdict,
)

#: What hears who asks while the store does not answer: it may be back at any moment.
AWAY: Final = Failure("engine_unavailable", retry_after_ms=1000)
_PLAIN: Final[Mapping[type, Failure]] = {
    Busy: Failure("session_busy"),
    TooLate: TOO_LATE,
    Tombstoned: Failure("cancelled"),
}


def refusal_of(verdict: Verdict, meter: Meter, bid: Bid) -> Failure:
    """Why a request is not admitted.

    Args:
        verdict: the store's; not that it was.
        meter: knows how long it may take until there is room.
        bid: the request.
    """
    match verdict:
        case Limited(wait) | OverBudget(wait):
            return rate_limited(wait)
        case NoRoom():
            return without_room(meter, bid.model)
        case TooManyForms():
            return too_many_forms(meter, bid.model)
        case NeverFits(prompt_tokens, answer_tokens) if bid.charge is not None:
            budget = RateLimit(bid.charge.limit, bid.charge.window)
            return never_fits(Usage(prompt_tokens, answer_tokens), budget)
        case _:  # where it is none of these, the store came to it too late
            return _PLAIN.get(type(verdict), AWAY)
