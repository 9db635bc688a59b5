"""One request, from taken to its terminal reply."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from inferbus_client.contract.trace import TraceContext
from inferbus_client.contract.wire import Code, Failure
from inferbus_worker.engines.backoff import jittered_pause
from inferbus_worker.engines.base import (
    BackendError,
    CancelledGenerationError,
    ChatCall,
    ContextTooLongError,
    EngineDeadError,
    EngineError,
    FirstTokenTimeoutError,
    GenerationTimeoutError,
    InvalidCallError,
)
from inferbus_worker.engines.registry import Registry
from inferbus_worker.engines.slot import Slot
from inferbus_worker.engines.slots import Lease, SlotTable
from inferbus_worker.flow.endings import Endings
from inferbus_worker.flow.job import Answer, Job
from inferbus_worker.flow.prompt import BroughtPrompt, Prompt, Prompts
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.replies.address import Owed, Receipt
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.tracing import Turn

log = logging.getLogger("inferbus.turn")

_NOT_BEGUN: Final = "The answer in a given form did not begin in the time that the worker allows for it."
_NOT_ENDED: Final = "It passed while the answer was generated."
#: Seconds, about, before a slot gets a request again that it has failed once; twice as many the next time.
_FIRST_REST: Final = 0.2
#: What a turn ends with whose job was marked before it began: nothing is said against the slot.
_NEVER_RAN: Final = CancelledGenerationError()
#: How a generation ends that nobody waited for any more.
_GIVEN_UP: Final = (CancelledGenerationError, GenerationTimeoutError)


class TurnRunner:
    """Runs turns. Stateless between turns; any number of threads may call `run`.

    Args:
        slots: where they run.
        registry: which models stand in for which.
        settings: the worker's.
        prompts: makes prompts.
        queue: where a request waits for another try.
        endings: writes what each turn ends with.
        begins: told that the turn of a message begins, by its receipt.
        clock: a monotonic one.
    """

    def __init__(
        self,
        slots: SlotTable,
        registry: Registry,
        settings: Settings,
        prompts: Prompts,
        queue: RequestQueue,
        endings: Endings,
        begins: Callable[[Receipt | Owed | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._registry = registry
        self._settings = settings
        self._prompts = prompts
        self._queue = queue
        self._endings = endings
        self._begins = begins
        self._clock = clock

    def run(self, job: Job) -> None:
        """Answer the job in the slot that it has. Afterwards it has ended, or waits for another try."""
        outcome: Answer | Failure | None = None
        is_first = job.taken_at is None
        lease = job.lease
        assert lease is not None  # noqa: S101 - the queue gives no job without
        error: BaseException | None = None
        goes_again = False
        try:
            if job.take():
                if is_first:
                    self._begins(job.replies.address.receipt)
                outcome = self._answer(job, lease)
                job.settle(outcome)  # before its slot is free: whoever looks at it then sees an answer
            else:
                error = CancelledGenerationError()
        except EngineError as raised:
            failure = lease.reason(raised)
            error, outcome = failure, _failure(failure)
            goes_again = self._may_go_again(job, lease.slot, failure)
        except Exception as failure:
            error = failure
            log.exception("a turn failed")
        except BaseException as failure:  # a Rust library's panic is no `Exception`; the pool says what it was
            error = failure
            raise
        finally:
            if isinstance(error, _GIVEN_UP) and job.reached_engine and not job.answering and job.request.has_form:
                lease.slot.forms_given_up += 1
            try:
                lease.end(error)
            finally:
                if goes_again:
                    self._go_again(job)
                else:
                    self._endings.write(job, _in_time(outcome, lease.slot))
                    job.let_go()

    def _answer(self, job: Job, lease: Lease) -> Answer:
        if (trace := job.replies.address.trace) is None:
            return self._in_context(job, lease, None)
        with trace.turn(lease.slot.name, len(job.attempts)) as turn:
            return self._in_context(job, lease, turn)

    def _in_context(self, job: Job, lease: Lease, turn: Turn | None) -> Answer:
        prompt = self._prompts.of(job, lease.slot.engine)
        while True:
            try:
                return self._generate(job, prompt, lease) if turn is None else self._traced(job, prompt, lease, turn)
            except ContextTooLongError:
                # What is left of the history pays for it; but nothing is said twice.
                if job.first_token_at is not None or not prompt.shorten():
                    raise

    def _traced(self, job: Job, prompt: Prompt | BroughtPrompt, lease: Lease, turn: Turn) -> Answer:
        """As `_generate`, and whoever traces the request sees how the engine fares."""
        temperature, top_p, max_tokens, _ = prompt.sampling
        model = lease.slot.model.name
        with turn.generation(model, temperature=temperature, top_p=top_p, max_tokens=max_tokens) as generating:
            answer = self._generate(job, prompt, lease, generating.context)
            generating.answered(answer.finish_reason, answer.usage)
            return answer

    def _generate(
        self, job: Job, prompt: Prompt | BroughtPrompt, lease: Lease, trace: TraceContext | None = None
    ) -> Answer:
        form_timeout = self._settings.form_timeout if job.request.has_form else None
        call = ChatCall(
            messages=prompt.messages,
            sampling=prompt.sampling,
            stream=job.request.stream,
            cache_salt=_cache_salt(job.key),
            thinking=self._settings.projects[job.key.project].thinking,
            first_token_within=form_timeout,
            tools=prompt.tools,
            trace=trace,
        )
        generation = lease.generation = lease.slot.engine.generate(call, partial(job.heard, lease))
        job.attach(generation)
        done = generation.wait(job.deadline)
        change = prompt.change(done)
        return Answer(done.text, done.finish_reason, done.usage, change, done.reasoning or None, done.tool_calls)

    def _may_go_again(self, job: Job, slot: Slot, error: EngineError) -> bool:
        """Whether there is another try: nothing has been shown, time and tries are left, and somebody may answer.

        Then nothing of this one will be shown any more.
        """
        is_lost = isinstance(error, EngineDeadError) and self._may_be_served_elsewhere(job, slot)
        if not is_lost and not (isinstance(error, BackendError) and error.may_retry):
            return False
        if job.outcome is not None:  # it has been marked meanwhile
            return False
        now = self._clock()
        has_time = now - job.admitted_at < self._settings.retry_for and (job.deadline is None or now < job.deadline)
        return has_time and len(job.attempts) <= self._settings.max_retries and job.detach()

    def _may_be_served_elsewhere(self, job: Job, slot: Slot) -> bool:
        """Whether what an engine in this process leaves behind has another slot, or another model stands in for it."""
        if self._slots.others(slot, job):
            return True
        return any(other.may_serve for other in self._registry.stand_ins(slot.model))

    def _go_again(self, job: Job) -> None:
        """Back to the head of its lane: to another slot at once, to the same one after a rest."""
        tries = len(job.attempts)
        job.waits_since = self._clock()
        job.may_repeat_at = job.waits_since + jittered_pause(_FIRST_REST, tries - 1, math.inf)
        if (trace := job.replies.address.trace) is not None:
            trace.waits()
        self._queue.give_back(job)
        # A mark that came meanwhile found it nowhere, and left it to us.
        if job.outcome is not None and self._queue.remove(job):
            self._endings.write(job)


def _cache_salt(key: SessionKey) -> str:
    """Prefix-cache entries are shared within a session alone: their timing would tell one user of another.

    It is the same over a conversation that its requests bring along, as long as they name the same session. Behind a
    gateway no two clients have the same one.
    """
    client = "" if key.client is None else f"/{key.client}"  # the last, since a slash may stand in it alone
    return hashlib.sha256(f"{key.scope}/{key.session}{client}".encode()).hexdigest()


def _in_time(outcome: Answer | Failure | None, slot: Slot) -> Answer | Failure | None:
    """A refusal that says when to ask again: when the slot is asked again."""
    if not isinstance(outcome, Failure) or outcome.code not in {"overloaded", "engine_unavailable"}:
        return outcome
    wait = slot.retry_after
    return replace(outcome, retry_after_ms=max(round(wait * 1000), 1)) if 0 < wait < math.inf else outcome


def _failure(error: EngineError) -> Failure:
    """What the requester hears. Details of our insides go to the log alone."""
    if isinstance(error, BackendError | EngineDeadError):
        return Failure(_of_backend(error))
    match error:
        case InvalidCallError():
            return Failure("invalid_request", str(error))
        case ContextTooLongError():
            return Failure("context_too_long")
        case CancelledGenerationError():
            return Failure("cancelled")
        case GenerationTimeoutError():
            is_first = isinstance(error, FirstTokenTimeoutError)
            return Failure("deadline_exceeded", _NOT_BEGUN if is_first else _NOT_ENDED)
        case _:
            log.error("the engine failed a request: %s", error)
            log.debug("how it failed", exc_info=error)
            return Failure("engine_error")


def _of_backend(error: BackendError | EngineDeadError) -> Code:
    """A place that is gone may be back later, one that refuses has enough to do, and one that breaks off has failed."""
    if isinstance(error, EngineDeadError):
        return "engine_unavailable"
    log.warning("a backend failed a request (%s): %s", error.fault, error)
    if error.is_refusal:
        return "overloaded"
    return "engine_unavailable" if error.fault == "connection" else "engine_error"
