"""What of a conversation goes to the engine: the system prompt, as much of the history as fits, the question.

Of a conversation that the request brings along, all of it: nobody but the requester knows what may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from inferbus_worker.chat import Message, Usage
from inferbus_worker.engines.base import Engine, Sampling
from inferbus_worker.flow.job import Job
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.conversation import Change, Remembered, remembered

#: What a chat template adds around one message, in tokens; generous, since a short estimate costs a refused prompt.
_TEMPLATE_TOKENS: Final = 8
#: An image's share of a history. How many tokens one takes is the model's secret; most take some hundred to a thousand.
_IMAGE_TOKENS: Final = 1024


class Prompts:
    """Makes prompts.

    Args:
        settings: the worker's.
    """

    def __init__(self, settings: Settings) -> None:
        self.projects: Mapping[str, ProjectSettings] = settings.projects
        self.max_history_tokens = settings.max_history_tokens
        #: What a request gets where it does not say.
        self.sampling_of = {
            name: Sampling(
                _first(project.temperature, settings.temperature),
                _first(project.top_p, settings.top_p),
                settings.max_tokens_of(name),
            )
            for name, project in settings.projects.items()
        }

    def of(self, job: Job, engine: Engine) -> Prompt | BroughtPrompt:
        """A job's prompt. It counts tokens, which may wait for the tokenizer.

        Args:
            job: which.
            engine: knows how long texts are, and how long a prompt may be.
        """
        return BroughtPrompt(job, self, engine) if job.request.is_stateless else Prompt(job, self, engine)


class Prompt:
    """One job's prompt.

    Attributes:
        sampling: the request's, where it says, else the project's, else the worker's.
        skip: how many of the history's oldest messages are left out.
    """

    def __init__(self, job: Job, prompts: Prompts, engine: Engine) -> None:
        self._job = job
        self._engine = engine
        self._history = job.claim.conversation
        self._system = _system_prompt(job, prompts.projects[job.key.project])
        self._system_tokens = self._count(self._system) if self._system else 0
        self._question = remembered(
            {"role": "user", "content": job.request.content},
            self._count(job.request.text) + job.request.image_count * _IMAGE_TOKENS,
        )
        self.sampling = _sampling(job, prompts.sampling_of[job.key.project])
        self.skip = self._history.excess(self._room(prompts.max_history_tokens))

    @property
    def messages(self) -> Sequence[Message]:
        """The whole prompt, oldest first."""
        system: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, *(one.message for one in self._history.messages[self.skip :]), self._question.message]

    @property
    def longest(self) -> Usage:
        """The longest that it can be, by our own estimate, and the longest answer to it."""
        history = self._history.tokens_without(self.skip)
        prompt = self._system_tokens + self._question.tokens + history
        return Usage(prompt, min(self.sampling.max_tokens, max(self._engine.context_tokens - prompt, 0)))

    def shorten(self) -> bool:
        """The estimate was short (an unusual template): leave out more of the history; False where there is none."""
        before, history = self.skip, self._history
        self.skip = max(before, history.excess(history.tokens_without(before) - 1))
        return self.skip > before

    def change(self, answer: str, tokens: int) -> Change:
        """What the turn does to the conversation.

        Args:
            answer: the engine's.
            tokens: its length, without the template's share.
        """
        said: tuple[Remembered, ...] = (
            self._question,
            remembered({"role": "assistant", "content": answer}, tokens + _TEMPLATE_TOKENS),
        )
        return Change(said, self.skip, self._job.request.system_prompt)

    def _room(self, max_history_tokens: int) -> int:
        """How many tokens of history fit beside system prompt, question and answer."""
        # Half of the context is the least a history may have: `max_tokens` is a bound, few answers are that long.
        context = self._engine.context_tokens
        answer = min(self.sampling.max_tokens, context // 2)
        return min(max_history_tokens, context - self._system_tokens - self._question.tokens - answer)

    def _count(self, text: str) -> int:
        return self._engine.count_tokens(text) + _TEMPLATE_TOKENS


class BroughtPrompt:
    """The prompt of a job whose request brings its whole conversation along: as it is, or not at all. See `Prompt`."""

    def __init__(self, job: Job, prompts: Prompts, engine: Engine) -> None:
        request = job.request
        self._engine = engine
        self._said = request.messages or []
        self._system = None
        if not request.brings_system_prompt:
            self._system = _system_prompt(job, prompts.projects[job.key.project])
        self.sampling = _sampling(job, prompts.sampling_of[job.key.project])

    @property
    def messages(self) -> Sequence[Message]:
        """The whole prompt, oldest first."""
        system: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, *(one.as_openai() for one in self._said)]

    @property
    def longest(self) -> Usage:
        """As `Prompt.longest`. What is far too long is not counted to its end: the engine refuses it."""
        context = self._engine.context_tokens
        prompt = self._count(self._system) if self._system else 0
        for one in self._said:
            prompt += self._count(one.text) + one.image_count * _IMAGE_TOKENS
            if prompt > context:
                break
        return Usage(prompt, min(self.sampling.max_tokens, max(context - prompt, 0)))

    def shorten(self) -> bool:
        """Nothing may be left out."""
        return False

    def change(self, answer: str, tokens: int) -> Change:  # noqa: ARG002
        """Nothing is kept."""
        return Change()

    def _count(self, text: str) -> int:
        return self._engine.count_tokens(text) + _TEMPLATE_TOKENS


def _system_prompt(job: Job, project: ProjectSettings) -> str | None:
    """The request's, else the session's, else the project's. An explicitly empty one is none at all."""
    return _first(job.request.system_prompt, job.claim.conversation.system_prompt, project.system_prompt) or None


def _sampling(job: Job, otherwise: Sampling) -> Sampling:
    request = job.request
    return Sampling(
        _first(request.temperature, otherwise.temperature),
        _first(request.top_p, otherwise.top_p),
        _first(request.max_tokens, otherwise.max_tokens),
        otherwise.extra if request.params is None else request.params.model_dump(exclude_none=True),
    )


def _first(*choices: Any) -> Any:
    """The first that was given; an explicit 0 is a 0."""
    for choice in choices:
        if choice is not None:
            return choice
    return None
