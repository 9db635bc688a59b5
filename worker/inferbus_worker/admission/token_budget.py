"""The token budget: how many tokens one session may use in a sliding window.

A request is charged at admission with the most that it can take, its prompt and what may be generated. When it has
ended well, what it really took stands in that place; when it ended before the engine saw it, nothing does. One that
failed in the engine keeps its charge: what it took is not known, and a cancel shortly before the end is no way around.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from inferbus_client.contract.wire import Failure
from inferbus_client.units import format_duration
from inferbus_worker.admission.refusals import rate_limited
from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import InvalidCallError
from inferbus_worker.flow.job import Job
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.state.protocols import Budgets

log = logging.getLogger("inferbus.token_budget")


class TokenBudget:
    """At most `budget.limit` tokens per session in any `budget.window` seconds.

    Args:
        budget: how many tokens in which window.
        longest: the longest prompt and the longest answer that a job can come to. It may wait for the tokenizer.
        budgets: where tokens are counted.
    """

    def __init__(self, budget: RateLimit, longest: Callable[[Job], Usage], budgets: Budgets) -> None:
        self._budget = budget
        self._longest = longest
        self._budgets = budgets

    def admit(self, job: Job) -> Failure | None:
        """Charge a job, or refuse it uncharged.

        Returns:
            None: charged. Otherwise `rate_limited`, or `invalid_request` where the job alone is over the budget and
            waiting would not help.
        """
        try:
            longest = self._longest(job)
        except InvalidCallError as refusal:
            return Failure("invalid_request", str(refusal))
        except Exception:
            log.exception("a request's tokens could not be counted")
            return Failure("engine_error")
        tokens = longest.prompt_tokens + longest.completion_tokens
        if tokens > self._budget.limit:
            return never_fits(longest, self._budget)
        charge = self._budgets.charge(job.key, tokens)
        if isinstance(charge, float | int):
            return rate_limited(charge)
        job.charge = charge
        return None


def never_fits(longest: Usage, budget: RateLimit) -> Failure:
    """What hears a request that alone is over the budget: waiting does not help."""
    return Failure(
        "invalid_request",
        f"It can take {longest.prompt_tokens} tokens of prompt and {longest.completion_tokens} of answer; "
        f"a session has {budget.limit} in {format_duration(budget.window)}.",
    )
