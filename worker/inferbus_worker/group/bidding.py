"""Makes of a request what the store decides on: a bid, by this worker's settings and what it knows of the group."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

from inferbus_client.contract.trace import TRACEPARENT, TRACESTATE
from inferbus_client.contract.wire import Failure, Request
from inferbus_worker.admission.arrival import Arrival
from inferbus_worker.admission.decoding import deadline_of, retry_key
from inferbus_worker.admission.limits import RateLimits
from inferbus_worker.admission.refusals import most_forms
from inferbus_worker.bus.acknowledgements import delivery_key
from inferbus_worker.engines.registry import Registry
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.prompt import Prompts
from inferbus_worker.group.figures import Figures
from inferbus_worker.group.reopening import Reopening
from inferbus_worker.group.writing import Body, write_body
from inferbus_worker.replies.stream import ReplyStream
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.redis.group import Bid, Charging
from inferbus_worker.state.redis.names import session_name
from inferbus_worker.state.stateless import NO_CLAIM


class Wish(NamedTuple):
    """A request, and where it came from."""

    arrival: Arrival
    request: Request
    key: SessionKey
    replies: ReplyStream


class Bidding:
    """For admission's thread, which may wait for the tokenizer here.

    Args:
        settings: the worker's.
        limits: the rate limits.
        registry: the models.
        meter: how long turns take.
        figures: what the group as a whole serves.
        reopening: is told what this worker need not read again.
        prompts: how long a request's is.
        clock: a monotonic one.
    """

    def __init__(
        self,
        settings: Settings,
        limits: RateLimits,
        registry: Registry,
        meter: Meter,
        figures: Figures,
        reopening: Reopening,
        prompts: Prompts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._registry = registry
        self._meter = meter
        self._figures = figures
        self._reopening = reopening
        self._prompts = prompts
        self._clock = clock
        self._numbers = itertools.count()

    def bid(self, wish: Wish) -> Bid | Failure:
        """What the store decides on, or why it is not asked."""
        request, key = wish.request, wish.key
        model = self._registry.meant(key.project, request.model)
        if isinstance(model, Failure):
            return model
        serving = self._registry.serving(model)
        if serving is None and not self._figures.expects(model.key):
            return self._registry.unavailable(model)
        lane = (serving or model).key
        charge = self._charge(wish, lane)
        since = wish.arrival.since
        now = self._clock()
        until = deadline_of(request, wish.arrival.message.expiry, now if since is None else since)
        deadline = None if until is None else until - now
        retry, may_repeat = self._retry(wish)
        traced = [each for each in wish.arrival.message.user_properties if each[0] in {TRACEPARENT, TRACESTATE}]
        body = Body(key, wish.replies.address, wish.arrival.message.payload, traced, retry is not None)
        name = self._new_name()
        self._reopening.admitted(name, body, request)
        return Bid(
            job=name,
            project=key.project,
            model=lane,
            owner=key.owner(request.client_id),
            session=None if request.is_stateless else session_name(key),
            flying=session_name(key.in_topics),
            names=wish.replies.address.request_id,
            retry=retry,
            may_repeat=may_repeat,
            windows=tuple(
                (f"{window.table}:{window.key!r}", window.rate.limit, window.rate.window)
                for window in self._limits.windows_of(key, request.client_id, in_session=not request.is_stateless)
            ),
            body=write_body(body),
            deadline=deadline,
            slot_by=self._settings.slot_timeout_in_force,
            most_ahead=None if deadline is None else self._meter.most_ahead(deadline, lane),
            form_limit=self._form_limit(request, lane),
            charge=charge,
        )

    def _retry(self, wish: Wish) -> tuple[str | None, bool]:
        """What a repeat of it is known by, and whether this may be one.

        Where the broker keeps a message until it is acknowledged, a request without ids is known by its delivery.
        """
        named = retry_key(wish.arrival.address, wish.request)
        if named is not None:
            return repr(tuple(named)), True
        message = wish.arrival.message
        if self._settings.ack == "on-receipt" or message.qos != 1:
            return None, True
        return f"{self._settings.worker_id}/{delivery_key(message)}", message.dup

    def _form_limit(self, request: Request, model: str) -> int | None:
        if not request.has_form or self._settings.form_share == 1:
            return None
        return most_forms(self._meter, model, self._settings.form_share)

    def _charge(self, wish: Wish, model: str) -> Charging | None:
        """What it costs, as far as it can be known without its session, of which the store knows the figures."""
        budget = self._settings.token_budget
        if budget is None:
            return None
        job = Job(
            request=wish.request,
            key=wish.key,
            claim=NO_CLAIM,
            replies=wish.replies,
            admitted_at=0.0,
            deadline=None,
            model=model,
            clock=self._clock,
        )
        engine = self._registry.counting(model)
        alone = self._prompts.alone(job, engine)
        return Charging(
            question=alone.question,
            system=alone.system,
            answer=alone.answer,
            history_most=0 if wish.request.is_stateless else self._settings.max_history_tokens,
            limit=budget.limit,
            window=budget.window,
            has_own_system=wish.request.is_stateless or wish.request.system_prompt is not None,
            context=engine.context_tokens,
        )

    def _new_name(self) -> str:
        """A job's: unique in the group, and in the order of time within a worker."""
        return f"{time.time_ns() // 1_000_000:014d}-{self._figures.instance}-{next(self._numbers)}"
