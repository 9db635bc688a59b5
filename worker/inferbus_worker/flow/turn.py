"""One request, from taken to its terminal reply."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    ChatCall,
    ContextTooLongError,
    Engine,
    EngineDeadError,
    EngineError,
    FirstTokenTimeoutError,
    GenerationTimeoutError,
    InvalidCallError,
)
from inferbus_worker.flow.endings import Endings
from inferbus_worker.flow.job import Answer, Job
from inferbus_worker.flow.prompt import BroughtPrompt, Prompt, Prompts
from inferbus_worker.replies.address import Receipt
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.keys import SessionKey

log = logging.getLogger("inferbus.turn")

_NOT_BEGUN: Final = "The answer in a given form did not begin in the time that the worker allows for it."
_NOT_ENDED: Final = "It passed while the answer was generated."


class TurnRunner:
    """Runs turns on one engine. Stateless between turns; any number of threads may call `run`.

    Args:
        engine: answers.
        settings: the worker's.
        prompts: makes prompts for it.
        endings: writes what each turn ends with.
        begins: told that the turn of a message begins, by its receipt.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        prompts: Prompts,
        endings: Endings,
        begins: Callable[[Receipt | None], None],
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._prompts = prompts
        self._endings = endings
        self._begins = begins

    def run(self, job: Job) -> None:
        """Answer the job. Whatever happens, it has ended when this returns."""
        outcome: Answer | Failure | None = None
        try:
            if job.take():
                self._begins(job.replies.address.receipt)
                outcome = self._answer(job)
        except EngineError as error:
            outcome = _failure(error)
        except Exception:
            log.exception("a turn failed")
        finally:
            self._endings.write(job, outcome)

    def _answer(self, job: Job) -> Answer:
        prompt = self._prompts.of(job)
        while True:
            try:
                return self._generate(job, prompt)
            except ContextTooLongError:
                # What is left of the history pays for it.
                if not prompt.shorten():
                    raise

    def _generate(self, job: Job, prompt: Prompt | BroughtPrompt) -> Answer:
        form_timeout = self._settings.form_timeout if job.request.has_form else None
        call = ChatCall(
            messages=prompt.messages,
            sampling=prompt.sampling,
            stream=job.request.stream,
            cache_salt=_cache_salt(job.key),
            thinking=self._settings.projects[job.key.project].thinking,
            first_token_within=form_timeout,
        )
        generation = self._engine.generate(call, job.heard)
        job.attach(generation)
        done = generation.wait(job.deadline)
        change = prompt.change(done.text, done.usage.completion_tokens)
        return Answer(done.text, done.finish_reason, done.usage, change, done.reasoning or None)


def _cache_salt(key: SessionKey) -> str:
    """Prefix-cache entries are shared within a session alone: their timing would tell one user of another.

    It is the same over a conversation that its requests bring along, as long as they name the same session.
    """
    return hashlib.sha256(f"{key.scope}/{key.session}".encode()).hexdigest()


def _failure(error: EngineError) -> Failure:
    """What the requester hears. Details of our insides go to the log alone."""
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
        case EngineDeadError():
            return Failure("engine_unavailable")
        case _:
            log.error("the engine failed a request: %s", error)
            log.debug("how it failed", exc_info=error)
            return Failure("engine_error")
