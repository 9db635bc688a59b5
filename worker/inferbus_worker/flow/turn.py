"""One request, from taken to its terminal reply."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any, Final

from inferbus_client.contract.wire import Failure
from inferbus_worker.chat import Message, Usage
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
    Sampling,
)
from inferbus_worker.flow.job import Answer, Job
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.memory.sessions import Exchange, SessionKey

log = logging.getLogger("inferbus.turn")

# What a chat template adds around one message, in tokens; generous, since a short estimate costs a refused prompt.
_TEMPLATE_TOKENS = 8
# An image's share of a history. How many tokens one takes is the model's secret; most take a few hundred to a thousand.
_IMAGE_TOKENS = 1024


class TurnRunner:
    """Runs turns on one engine. Stateless between turns; any number of threads may call `run`."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._projects: Mapping[str, ProjectSettings] = settings.projects
        #: What a request gets where it does not say.
        self._sampling_of = {
            name: Sampling(
                _first(project.temperature, settings.temperature),
                _first(project.top_p, settings.top_p),
                settings.max_tokens_of(name),
            )
            for name, project in settings.projects.items()
        }

    def run(self, job: Job) -> None:
        """Answer the job. Whatever happens, it has ended when this returns."""
        if not job.take():
            return
        try:
            job.end(self._answer(job))
        except EngineError as error:
            job.end(_failure(error))
        except Exception:
            log.exception("a turn failed")
            job.end(Failure("engine_error"))

    def most(self, job: Job) -> Usage:
        """The longest prompt that this job's turn can send, by our own estimate, and the longest answer to it."""
        system, question = self._system_tokens(job), self._question_tokens(job)
        max_tokens = self._sampling(job).max_tokens
        conversation = job.claim.conversation
        history = conversation.tokens_without(conversation.excess(self._history_room(system + question, max_tokens)))
        prompt = system + question + history
        return Usage(prompt, min(max_tokens, max(self._engine.context_tokens - prompt, 0)))

    def _answer(self, job: Job) -> Answer:
        question_tokens = self._question_tokens(job)
        sampling = self._sampling(job)
        conversation = job.claim.conversation
        skip = conversation.excess(self._history_budget(job, question_tokens, sampling.max_tokens))
        while True:
            try:
                return self._generate(job, self._call(job, sampling, skip), question_tokens, skip)
            except ContextTooLongError:
                # The estimate was short (an unusual template); what is left of the history pays for it.
                before, skip = skip, conversation.excess(conversation.tokens_without(skip) - 1)
                if skip <= before:
                    raise

    def _generate(self, job: Job, call: ChatCall, question_tokens: int, skip: int) -> Answer:
        generation = self._engine.generate(call)
        job.attach(generation)
        text, reasoning = [], []
        for chunk in generation.chunks(job.deadline):
            job.answering = True
            text.append(chunk.text)
            reasoning.append(chunk.reasoning)
            if job.request.stream and (chunk.text or chunk.reasoning):
                job.delta(chunk.text, chunk.reasoning)
            if chunk.finish_reason is not None and chunk.usage is not None:
                answer = "".join(text)
                tokens = question_tokens + chunk.usage.completion_tokens + _TEMPLATE_TOKENS
                exchange = Exchange(job.request.content, answer, tokens)
                return Answer(answer, chunk.finish_reason, chunk.usage, exchange, "".join(reasoning) or None, skip)
        raise EngineError("the generation ended without a finish reason")

    def _call(self, job: Job, sampling: Sampling, skip: int) -> ChatCall:
        return ChatCall(
            messages=self._prompt(job, skip),
            sampling=sampling,
            chunk_interval=self._settings.delta_interval if job.request.stream else None,
            cache_salt=_cache_salt(job.key),
            thinking=self._projects[job.key.project].thinking,
            first_token_within=self._settings.form_timeout if job.request.has_form else None,
        )

    def _prompt(self, job: Job, skip: int) -> list[Message]:
        system = self._system_prompt(job)
        messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        messages += job.claim.conversation.messages[2 * skip :]
        messages.append({"role": "user", "content": job.request.content})
        return messages

    def _system_prompt(self, job: Job) -> str | None:
        """The request's, else the session's, else the project's. An explicitly empty one is none at all."""
        project = self._projects[job.key.project]
        return _first(job.request.system_prompt, job.claim.conversation.system_prompt, project.system_prompt) or None

    def _sampling(self, job: Job) -> Sampling:
        request, otherwise = job.request, self._sampling_of[job.key.project]
        return Sampling(
            _first(request.temperature, otherwise.temperature),
            _first(request.top_p, otherwise.top_p),
            _first(request.max_tokens, otherwise.max_tokens),
            otherwise.extra if request.params is None else request.params.model_dump(exclude_none=True),
        )

    def _history_budget(self, job: Job, question_tokens: int, max_tokens: int) -> int:
        """How many tokens of history fit beside system prompt, question and answer."""
        return self._history_room(self._system_tokens(job) + question_tokens, max_tokens)

    def _history_room(self, other_tokens: int, max_tokens: int) -> int:
        # Half of the context is the least a history may have: `max_tokens` is a bound, few answers are that long.
        answer = min(max_tokens, self._engine.context_tokens // 2)
        return min(self._settings.max_history_tokens, self._engine.context_tokens - other_tokens - answer)

    def _system_tokens(self, job: Job) -> int:
        system = self._system_prompt(job)
        return 0 if system is None else self._engine.count_tokens(system) + _TEMPLATE_TOKENS

    def _question_tokens(self, job: Job) -> int:
        images = job.request.image_count * _IMAGE_TOKENS
        return self._engine.count_tokens(job.request.text) + images + _TEMPLATE_TOKENS


_NOT_BEGUN: Final = "The answer in a given form did not begin in the time that the worker allows for it."
_NOT_ENDED: Final = "It passed while the answer was generated."


def _cache_salt(key: SessionKey) -> str:
    """Prefix-cache entries are shared within a session alone: their timing would tell one user of another."""
    return hashlib.sha256(f"{key.scope}/{key.session}".encode()).hexdigest()


def _first(*choices: Any) -> Any:
    """The first that was given; an explicit 0 is a 0."""
    for choice in choices:
        if choice is not None:
            return choice
    return None


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
