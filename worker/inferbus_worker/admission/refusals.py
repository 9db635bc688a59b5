"""Why a request is not admitted, in the contract's words: the same whether this process decides, or a group's store."""

from __future__ import annotations

from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_worker.flow.meter import Meter

TOO_LATE: Final = Failure("deadline_exceeded", "It cannot be met: the wait in the queue alone is longer.")
#: Seconds after which to ask again for an answer in a given form, where nothing better is known.
_LEAST_WAIT: Final = 1.0


def rate_limited(wait: float) -> Failure:
    """A window, or the token budget, has room again in so many seconds."""
    return Failure("rate_limited", retry_after_ms=milliseconds(wait))


def without_room(meter: Meter, model: str) -> Failure:
    """The queue has no place for it."""
    soonest = meter.wait_estimate(0, model)
    return Failure("overloaded", retry_after_ms=milliseconds(soonest) if soonest else None)


def most_forms(meter: Meter, model: str, share: float) -> int:
    """How many answers in a given form may be under way for a model.

    They never take up a whole model: the grammars that they need can keep an engine busy.
    """
    return max(1, int((meter.at_once(model) or 1) * share))


def too_many_forms(meter: Meter, model: str) -> Failure:
    """So many are."""
    wait = max(meter.wait_estimate(meter.at_once(model) or 1, model) or 0, _LEAST_WAIT)
    detail = "As many answers in a given form as may be are under way."
    return Failure("overloaded", detail, retry_after_ms=milliseconds(wait))


def milliseconds(seconds: float) -> int:
    """As replies say it; 0 where it is now, else 1 at least."""
    return max(1, round(seconds * 1000)) if seconds else 0
