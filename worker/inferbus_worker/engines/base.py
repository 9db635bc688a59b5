"""What an engine is: an OpenAI chat completion, whatever runs underneath (an event loop, another process or machine).

A worker thread begins a completion and waits for its end; what the answer grows by, the engine's own thread notes where
it is told to. Everything that may go wrong inside is one of the errors below:

    EngineError               the request failed; others are not affected
    ├── InvalidCallError      the engine refuses the request's parameters or content
    ├── ContextTooLongError   the prompt does not fit the model's context
    ├── CancelledGenerationError  somebody called `Generation.cancel`
    ├── GenerationTimeoutError    the deadline passed while it was generated
    │   └── FirstTokenTimeoutError  the first token did not come in the time that the call gives it (`within`)
    ├── BackendError          a server across the network has failed it; another one, or a later try, may answer it
    └── EngineDeadError       the engine will never answer again
    EngineStartError          the engine did not come up (raised by `Engine.start` alone)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol

from inferbus_client.contract.trace import TraceContext
from inferbus_worker.chat import CallDelta, FinishReason, Message, Thinking, ToolCall, ToolUse, Usage

#: Roughly: for engines that have no tokenizer to ask, or not yet.
CHARACTERS_PER_TOKEN: Final = 4


class EngineError(Exception):
    """A request failed inside the engine. The text is for the log, never for the requester."""


class InvalidCallError(EngineError):
    """The engine refuses the request. The text is written for the requester and names what is wrong."""


class ContextTooLongError(EngineError):
    """The prompt, with room for at least one token of answer, does not fit the model's context."""


class CancelledGenerationError(EngineError):
    """`Generation.cancel` ended this generation."""


class GenerationTimeoutError(EngineError):
    """The deadline passed; the engine has been told to stop."""


class FirstTokenTimeoutError(GenerationTimeoutError):
    """No token came in the time that the call gives the first one; the engine has been told to stop.

    Attributes:
        within: that time, in seconds.
    """

    def __init__(self, within: float) -> None:
        super().__init__(f"no token within {within:g} s")
        self.within = within


#: How a server across the network fails a request, as it is counted: by its answer, or by the connection.
BackendFault = Literal["429", "503", "529", "5xx", "connection", "cut", "timeout"]


_REFUSALS: Final = frozenset({"429", "503", "529"})


class BackendError(EngineError):
    """A server across the network has failed the request. The text is for the log, and never quotes the request.

    Attributes:
        fault: in which way.
        retry_after: seconds that the server asks to be left alone for; None where it does not say.
        may_retry: False where the server says that no later try will do (a spent budget, `x-should-retry: false`).
    """

    def __init__(
        self, text: str, fault: BackendFault, *, retry_after: float | None = None, may_retry: bool = True
    ) -> None:
        super().__init__(text)
        self.fault: BackendFault = fault
        self.retry_after = retry_after
        self.may_retry = may_retry

    @property
    def is_refusal(self) -> bool:
        """Whether the server is well, and has enough to do."""
        return self.fault in _REFUSALS


class EngineDeadError(EngineError):
    """Final: this engine answers no more. Where it is the only one the supervisor restarts the process."""


class EngineStartError(Exception):
    """The engine did not come up. The text is one sentence for the operator."""


class Sampling(NamedTuple):
    """How to sample, in OpenAI's terms. `extra` holds allowlisted parameters by their OpenAI names."""

    temperature: float
    top_p: float
    max_tokens: int
    extra: Mapping[str, Any] = MappingProxyType({})


class ChatCall(NamedTuple):
    """One chat completion to run.

    Attributes:
        messages: the whole prompt, oldest first.
        sampling: how to sample.
        stream: whether somebody wants the answer as it grows.
        cache_salt: who may share prefix-cache entries with this call; never shared across session owners.
        thinking: whether a reasoning model thinks (`off`: it does not), and whether its reasoning is shown.
        first_token_within: seconds until the first token, reasoning included, must have come; None: any time.
        tools: what the model may call.
        trace: where it stands in somebody's trace; None for nearly all.
    """

    messages: Sequence[Message]
    sampling: Sampling
    stream: bool = False
    cache_salt: str | None = None
    thinking: Thinking = "hide"
    first_token_within: float | None = None
    tools: ToolUse | None = None
    trace: TraceContext | None = None

    @property
    def has_form(self) -> bool:
        """Whether the answer must be JSON of a given form."""
        shape: Mapping[str, Any] = self.sampling.extra.get("response_format", {})
        return bool(shape.get("type", "text") != "text")

    @property
    def has_grammar(self) -> bool:
        """Whether the engine has to compile a grammar first: for a form, or for the calls that it is to make."""
        use = self.tools
        if use is None or use.choice == "none":
            return self.has_form
        return self.has_form or use.is_forced or any(tool["function"].get("strict") for tool in use.tools)


class Completion(NamedTuple):
    """A whole answer. `reasoning` is empty where there was none, or it is hidden.

    Where it calls tools, and only there, its finish reason is `tool_calls`.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class OnDelta(Protocol):
    """Told, in the engine's thread, what an answer has grown by. It notes, and never waits.

    Called at least once before the end of an answer in a given form, if only with nothing: then the answer has begun.
    """

    def __call__(self, text: str, reasoning: str, calls: Sequence[CallDelta] = ..., /) -> None: ...


class Generation(Protocol):
    """One running chat completion, waited for by one thread, cancelled from any."""

    def wait(self, deadline: float | None) -> Completion:
        """Wait for the end.

        Args:
            deadline: on `time.monotonic()`'s clock. When it passes the generation is aborted.

        Raises:
            EngineError: see the tree above. Whatever was raised, nothing goes on in the engine.
        """
        ...

    def cancel(self) -> None:
        """Stop generating, soon. Safe from any thread, any number of times, also after the end."""
        ...


class Engine(Protocol):
    """A model that answers chat completions, many at a time."""

    @property
    def model(self) -> str:
        """The name under which the model is served, for presence and logs."""
        ...

    @property
    def capacity(self) -> int:
        """How many generations run at once; the worker pool never has more under way."""
        ...

    @property
    def context_tokens(self) -> int:
        """The longest prompt plus answer, in tokens."""
        ...

    @property
    def death(self) -> EngineDeadError | None:
        """Why the engine will never answer again, or None while it lives."""
        ...

    @property
    def headroom(self) -> float | None:
        """What is left of the least of a backend's rate-limit windows, from 0 to 1; None where none is told."""
        ...

    @property
    def leaked(self) -> int:
        """How many generations were given up since the start and went on in the backend all the same."""
        ...

    @property
    def counts_exactly(self) -> bool:
        """Whether `count_tokens` counts; else it estimates."""
        ...

    @property
    def memory_bytes(self) -> int | None:
        """What the engine has taken of this host's memory (a GPU's, if it is on one); None while not known."""
        ...

    def start(self) -> None:
        """Bring the engine up; returns when it can answer. Blocking; may take minutes.

        Raises:
            EngineStartError: it did not come up.
        """
        ...

    def generate(self, call: ChatCall, on_delta: OnDelta | None = None) -> Generation:
        """Begin a chat completion. Never blocks on the engine; errors come from `Generation.wait`.

        Args:
            call: what to complete.
            on_delta: told of what the answer grows by; all of it together is the answer.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """The length of `text` in the model's own tokens, without template. Safe from any thread."""
        ...

    def stop(self, timeout: float) -> None:
        """End the engine and every process it started, within `timeout` seconds. Safe to call twice."""
        ...
