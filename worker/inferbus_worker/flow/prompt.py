"""What of a conversation goes to the engine: the system prompt, as much of the history as fits, the question.

Of a conversation that the request brings along, all of it: nobody but the requester knows what may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from inferbus_client.contract.wire import Request
from inferbus_worker.chat import Message, ToolUse, Usage
from inferbus_worker.engines.base import Completion, Engine, InvalidCallError, Sampling
from inferbus_worker.flow.job import Job
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.conversation import Change, Conversation, Remembered, remembered

#: What a chat template adds around one message, in tokens; generous, since a short estimate costs a refused prompt.
_TEMPLATE_TOKENS: Final = 8
#: Characters; few tokens are longer.
_LONG_TOKEN: Final = 8
#: Tokens that a template may write by itself before a conversation.
_SLACK: Final = 56
#: An image's share of a history. How many tokens one takes is the model's secret; most take some hundred to a thousand.
_IMAGE_TOKENS: Final = 1024

_message_of: Final = attrgetter("message")


class Alone(NamedTuple):
    """What a request comes to by itself, in tokens by our own estimate, whatever its session has said before.

    Attributes:
        question: what it says, with the tools that it offers.
        system: the system prompt, its own or its project's.
        answer: the longest.
    """

    question: int
    system: int
    answer: int


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

    def alone(self, job: Job, engine: Engine) -> Alone:
        """What a job comes to whose session is not known here; see `of`."""
        request = job.request
        if request.is_stateless:
            longest = BroughtPrompt(job, self, engine).longest
            return Alone(longest.prompt_tokens, 0, longest.completion_tokens)
        said = sum(one.tokens for one in _remembered_said(request, engine))
        question = said + _tokens_of_tools(request, engine)
        system = system_tokens(_system_prompt(job, self.projects[job.key.project]), engine)
        most = _sampling(job, self.sampling_of[job.key.project]).max_tokens
        return Alone(question, system, min(most, max(engine.context_tokens - question - system, 0)))


class Prompt:
    """One job's prompt.

    Attributes:
        sampling: the request's, where it says, else the project's, else the worker's.
        tools: what the model may call.
        skip: how many of the history's oldest messages are left out.
    """

    def __init__(self, job: Job, prompts: Prompts, engine: Engine) -> None:
        request = job.request
        self._job = job
        self._engine = engine
        #: Without a last turn whose calls nobody has answered, and now nobody will.
        self._history = _history_for(request, job.claim.conversation)
        self._system = _system_prompt(job, prompts.projects[job.key.project])
        self._head_tokens = system_tokens(self._system, engine) + _tokens_of_tools(request, engine)
        self._said = request.said
        self._counted: Sequence[Remembered] | None = None
        self.sampling = _sampling(job, prompts.sampling_of[job.key.project])
        self.tools = _tools(request)
        # Nor, perhaps, is what it says of its answers exact; and what a template makes of tools nobody knows.
        if not engine.counts_exactly or self.tools is not None:
            self._count()
        self.skip = self._excess(prompts.max_history_tokens) if self._history.messages else 0

    @property
    def messages(self) -> Sequence[Message]:
        """The whole prompt, oldest first."""
        system: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, *map(_message_of, self._history.messages[self.skip :]), *self._said]

    @property
    def longest(self) -> Usage:
        """The longest that it can be, by our own estimate, and the longest answer to it."""
        history = self._history.tokens_without(self.skip)
        prompt = self._head_tokens + self._count() + history
        return Usage(prompt, min(self.sampling.max_tokens, max(self._engine.context_tokens - prompt, 0)))

    def shorten(self) -> bool:
        """The estimate was short (an unusual template): leave out more of the history; False where there is none."""
        before, history = self.skip, self._history
        less = history.tokens_without(before) - 1
        self.skip = max(before, history.excess(less, keeps_last_turn=self._goes_on))
        return self.skip > before

    def change(self, answer: Completion) -> Change:
        """What the turn does to the conversation.

        Args:
            answer: the engine's. Its tokens are counted without the template's share.
        """
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.tool_calls:
            message["tool_calls"] = list(answer.tool_calls)
        said = (*self._remembered(answer.usage), remembered(message, answer.usage.completion_tokens + _TEMPLATE_TOKENS))
        dropped = len(self._job.claim.conversation.messages) - len(self._history.messages)
        return Change(said, self.skip, dropped, self._job.request.system_prompt)

    @property
    def _goes_on(self) -> bool:
        """Whether the last turn of the history is not over: its calls are being answered."""
        return self._job.request.tool_results is not None

    def _excess(self, max_history_tokens: int) -> int:
        """How many of the oldest messages are too many. What is said is counted only where that makes a difference."""
        room = self._room(max_history_tokens, self._most)
        if room < min(max_history_tokens, self._history.tokens):
            room = self._room(max_history_tokens, self._count())
        return self._history.excess(room, keeps_last_turn=self._goes_on)

    def _room(self, max_history_tokens: int, said_tokens: int) -> int:
        """How many tokens of history fit beside system prompt, question and answer."""
        # Half of the context is the least a history may have: `max_tokens` is a bound, few answers are that long.
        context = self._engine.context_tokens
        answer = min(self.sampling.max_tokens, context // 2)
        return min(max_history_tokens, context - self._head_tokens - said_tokens - answer)

    @property
    def _most(self) -> int:
        """As many tokens as what is said may have. Few tokenizers make more of a text than it has bytes."""
        request = self._job.request
        size = len(request.text.encode(errors="replace")) + request.image_count * _IMAGE_TOKENS
        return size + _TEMPLATE_TOKENS * len(self._said)

    def _count(self) -> int:
        """The length of what is said, in tokens."""
        if self._counted is None:
            self._counted = _remembered_said(self._job.request, self._engine)
        return sum(one.tokens for one in self._counted)

    def _remembered(self, usage: Usage) -> Sequence[Remembered]:
        """What is said, with its sizes: what the prompt is longer by than all else in it, where nobody has counted.

        To count takes the tokenizer longer than all that a worker thread does besides.
        """
        request = self._job.request
        if self._counted is None and len(self._said) == 1 and not request.image_count:
            grown = usage.prompt_tokens - self._head_tokens - self._history.tokens_without(self.skip)
            # What cannot be true is not believed: some servers leave out what they had cached.
            if len(request.text) // _LONG_TOKEN < grown <= self._most + _SLACK:
                return [remembered(self._said[0], grown)]
        self._count()
        return self._counted or ()


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
        self.tools = _tools(request)
        self._tools_tokens = _tokens_of_tools(request, engine)

    @property
    def messages(self) -> Sequence[Message]:
        """The whole prompt, oldest first."""
        system: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, *(one.as_openai() for one in self._said)]

    @property
    def longest(self) -> Usage:
        """As `Prompt.longest`. What is far too long is not counted to its end: the engine refuses it."""
        context = self._engine.context_tokens
        prompt = self._tools_tokens + system_tokens(self._system, self._engine)
        for one in self._said:
            prompt += _count(one.text, self._engine) + one.image_count * _IMAGE_TOKENS
            if prompt > context:
                break
        return Usage(prompt, min(self.sampling.max_tokens, max(context - prompt, 0)))

    def shorten(self) -> bool:
        """Nothing may be left out."""
        return False

    def change(self, answer: Completion) -> Change:  # noqa: ARG002
        """Nothing is kept."""
        return Change()


def system_tokens(prompt: str | None, engine: Engine) -> int:
    """What a system prompt takes; none takes nothing."""
    return _count(prompt, engine) if prompt else 0


def _system_prompt(job: Job, project: ProjectSettings) -> str | None:
    """The request's, else the session's, else the project's. An explicitly empty one is none at all."""
    return _first(job.request.system_prompt, job.claim.conversation.system_prompt, project.system_prompt) or None


def _remembered_said(request: Request, engine: Engine) -> list[Remembered]:
    """What a request adds to the history, with its sizes."""
    said = request.said
    if len(said) == 1:
        return [remembered(said[0], _count(request.text, engine) + request.image_count * _IMAGE_TOKENS)]
    return [
        remembered(message, _count(result.text, engine))
        for message, result in zip(said, request.tool_results or (), strict=True)
    ]


def _count(text: str, engine: Engine) -> int:
    return engine.count_tokens(text) + _TEMPLATE_TOKENS


def _history_for(request: Request, history: Conversation) -> Conversation:
    """The history that a request goes on from: a plain message leaves out a turn whose calls nobody has answered.

    Raises:
        InvalidCallError: it brings other results than the last turn waits for.
    """
    waited_for = [call["id"] for call in history.unanswered]
    if request.tool_results is None:
        return history.without_last_turn() if waited_for else history
    if not waited_for:
        raise InvalidCallError("toolResults: no calls of this session wait for results.")
    answered = {result.tool_call_id for result in request.tool_results}
    if answered.difference(waited_for):
        raise InvalidCallError("toolResults: a toolCallId is not among the calls that wait for results.")
    if missing := len(set(waited_for) - answered):
        raise InvalidCallError(f"toolResults: {missing} of the {len(waited_for)} calls have no result.")
    return history


def _tools(request: Request) -> ToolUse | None:
    if request.tools is None:
        return None
    choice = request.tool_choice or "auto"
    return ToolUse(
        [tool.model_dump(exclude_none=True) for tool in request.tools],
        choice if isinstance(choice, str) else choice.model_dump(),
        request.parallel_tool_calls,
    )


def _tokens_of_tools(request: Request, engine: Engine) -> int:
    """What a template makes of the tools, about: their definitions in JSON."""
    if request.tools is None:
        return 0
    written = "\n".join([tool.model_dump_json(exclude_none=True) for tool in request.tools])
    return engine.count_tokens(written) + _TEMPLATE_TOKENS * len(request.tools)


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
