"""What a requester hears when the store has said no, in the contract's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from inferbus_client.contract.wire import Failure
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
_LATE: Final = Failure("deadline_exceeded", "It cannot be met: the wait in the queue alone is longer.")
_PLAIN: Final[Mapping[type, Failure]] = {
    Busy: Failure("session_busy"),
    TooLate: _LATE,
    Tombstoned: Failure("cancelled"),
}
#: Milliseconds after which to ask again for an answer in a given form, where nothing better is known.
_LEAST_WAIT_MS: Final = 1000


def refusal_of(verdict: Verdict, meter: Meter, bid: Bid) -> Failure:
    """Why a request is not admitted.

    Args:
        verdict: the store's; not that it was.
        meter: knows how long it may take until there is room.
        bid: the request.
    """
    model = bid.model
    match verdict:
        case Limited(wait) | OverBudget(wait):
            return Failure("rate_limited", retry_after_ms=_milliseconds(wait))
        case NoRoom():
            soonest = meter.wait_estimate(0, model)
            return Failure("overloaded", retry_after_ms=_milliseconds(soonest) if soonest else None)
        case TooManyForms():
            wait = meter.wait_estimate(meter.at_once(model), model) or 0
            detail = "As many answers in a given form as may be are under way."
            return Failure("overloaded", detail, retry_after_ms=max(_milliseconds(wait), _LEAST_WAIT_MS))
        case NeverFits(prompt_tokens, answer_tokens) if bid.charge is not None:
            budget = RateLimit(bid.charge.limit, bid.charge.window)
            return never_fits(Usage(prompt_tokens, answer_tokens), budget)
        case _:  # where it is none of these, the store came to it too late
            return _PLAIN.get(type(verdict), AWAY)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
