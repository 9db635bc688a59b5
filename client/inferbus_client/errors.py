"""Every exception of the client library, and what each carries.

InferbusError
├── BrokerError                   the MQTT connection (`reason`)
│   ├── NotConnectedError         there has been none yet
│   ├── BrokerUnreachableError    nobody answers there
│   ├── BrokerRefusedError        it answers, and says no: credentials, identity, protocol, TLS
│   │   └── MessageRefusedError   it closes the connection on this message or subscription (`topic`, `size`)
│   ├── ConnectionLostError       it was there, and went away for good (lost again and again)
│   │   ├── ClientClosedError     by `close`
│   │   └── IdTakenError          another client uses this client id, and stays
│   ├── AlreadyServedError        another worker serves these projects (`worker`, `projects`)
│   └── NoSharesError             it delivers nothing for shared subscriptions, which a group needs (`share`)
├── RequestFailedError            the worker said no or failed (`code`, `status`, `retryable`, `retry_after`)
│   ├── InvalidRequestError       invalid_request, context_too_long, message_too_large
│   ├── SessionBusyError          session_busy
│   ├── RateLimitedError          rate_limited
│   ├── RequestCancelledError     cancelled
│   ├── EngineFailedError         engine_error
│   ├── UnavailableError          overloaded, engine_unavailable, shutting_down
│   └── DeadlineExceededError     deadline_exceeded
├── AnswerChangedError            begun anew by another worker, in other words, where nothing can be taken back (`run`)
├── RequestTimeoutError           no word from the worker in time (`waited`, `what`)
├── SettingsError                 settings that cannot be used: nothing was tried yet
│   └── ConflictError             settings that cannot be meant together (`names`)
├── MisuseError                   a call that cannot be meant, where and when it was made
│   ├── OptionTypeError           no such option, or none that could be called (`option`; a `TypeError` too)
│   ├── OptionValueError          an option that cannot have this value (`option`; a `ValueError` too)
│   └── StreamInUseError          a stream that is being read elsewhere (a `ValueError` and a `RuntimeError` too)
├── ToolError                     raised by a tool: the model is told its text
├── ToolRoundsError               the model calls tools on and on (`calls`, `rounds`)
├── UnknownWorkerError            no worker of that name has said anything (`worker`, `known`)
├── WorkerLivesError              what is for workers that have gone, asked of one that answers (`worker`)
└── DrainIgnoredError             a worker that was asked to leave does not react (`worker`)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, Self

from inferbus_client.shown import shown_in_line

if TYPE_CHECKING:
    from inferbus_client.contract.wire import Failure
    from inferbus_client.contract.wire.messages import ToolCall

#: Names that a sentence lists; a bus where anyone may announce workers can have any number.
_NAMED: Final = 20


class InferbusError(Exception):
    """Anything this library raises on purpose."""


class SettingsError(InferbusError):
    """Settings that cannot be used. The text is one sentence for the user and holds no secret."""


class ConflictError(SettingsError, ValueError):
    """Settings that cannot be meant together; pydantic takes a complaint only as a `ValueError`.

    Attributes:
        names: which ones.
    """

    def __init__(self, text: str, *names: str) -> None:
        super().__init__(text)
        self.names = names


class MisuseError(InferbusError):
    """A call that cannot be meant: the program that made it is wrong, whatever becomes of the broker and the worker."""


class OptionTypeError(MisuseError, TypeError):
    """There is no such option, or it is something to be called and cannot be.

    Attributes:
        option: its name.
    """

    def __init__(self, text: str, option: str) -> None:
        super().__init__(text)
        self.option = option


class OptionValueError(MisuseError, ValueError):
    """An option cannot have this value.

    Attributes:
        option: its name.
    """

    def __init__(self, text: str, option: str) -> None:
        super().__init__(text)
        self.option = option


class StreamInUseError(MisuseError, ValueError, RuntimeError):
    """A stream is being read elsewhere: by another thread or task, or by whoever is just being called back."""

    def __init__(self) -> None:
        super().__init__("this stream is being read elsewhere; `cancel` ends it from there too")


class BrokerError(InferbusError):
    """The MQTT connection failed.

    Attributes:
        reason: one sentence in the broker's or the system's own words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def again(self) -> Self:
        """The same for somebody else to raise: an exception that is raised often keeps every traceback."""
        twin = type(self).__new__(type(self), *self.args)
        vars(twin).update(vars(self))
        return twin


class NotConnectedError(BrokerError):
    """Nobody has connected this client yet, or it did not come off."""


class BrokerUnreachableError(BrokerError):
    """Nobody answers at the broker's address."""


class BrokerRefusedError(BrokerError):
    """The broker answers, and refuses this client."""


class MessageRefusedError(BrokerRefusedError):
    """The broker closes the connection whenever this message, or this subscription, is sent. Others go on.

    Attributes:
        topic: where the message was to go, or the subscription's filter.
        size: the message's bytes, its topic's included.
    """

    def __init__(self, topic: str, size: int, *, is_filter: bool = False) -> None:
        reason = (
            f"a subscription to {topic!r}: it seems to be forbidden"
            if is_filter
            else f"{size} bytes to {topic!r}: too many for it (see max_packet_bytes), or a topic that it does not take"
        )
        super().__init__(f"the broker closes the connection on {reason}")
        self.topic = topic
        self.size = size


class ConnectionLostError(BrokerError):
    """The connection is gone and will not come back by itself."""


class ClientClosedError(ConnectionLostError):
    """This client was closed. It can be connected again."""


class IdTakenError(ConnectionLostError):
    """Another client uses this client id on the same broker; to come back would throw it out."""


class AlreadyServedError(BrokerError):
    """Another worker serves projects that this one was to serve: every request would be answered twice.

    Attributes:
        worker: its name.
        projects: those that both were to serve.
    """

    def __init__(self, worker: str, projects: tuple[str, ...], where: str, *, groups: bool = False) -> None:
        named = f"project{'s' if len(projects) > 1 else ''} {', '.join(projects)}"
        others = ", or both the same --group and --state" if groups else ""
        super().__init__(
            f"worker {worker!r} already serves {named} ({where}), and two would answer every request twice; give this "
            f"one other projects{others}, or start it with --alongside"
        )
        self.worker = worker
        self.projects = projects


class NoSharesError(BrokerError):
    """The broker has no shared subscriptions, whatever it says: a group of workers would be dealt no request.

    Attributes:
        share: the filter that was tried.
    """

    def __init__(self, share: str, broker: str, why: str) -> None:
        super().__init__(
            f"the broker at {broker} cannot deal requests to a group of workers: {why}; use one that can (Mosquitto, "
            f"EMQX, HiveMQ, VerneMQ) and whose access rules allow {share!r}, or one worker without --state"
        )
        self.share = share


class RequestTimeoutError(InferbusError):
    """The worker kept silent for too long.

    Attributes:
        what: what did not come ("first sign of life", "next delta", "answer").
        waited: seconds.
    """

    def __init__(self, what: str, waited: float) -> None:
        super().__init__(f"no {what} within {waited:g} s")
        self.what = what
        self.waited = waited


class RequestFailedError(InferbusError):
    """The worker refused the request, or failed to answer it.

    Attributes:
        failure: which failure, as the worker said it.
        code: one of the contract's failure codes.
        status: the matching HTTP-like status.
        retryable: whether the same request may succeed later.
        retry_after: seconds to wait before that, where the worker knows it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.code = failure.code
        self.status = failure.status
        self.retryable = failure.retryable
        self.retry_after = None if failure.retry_after_ms is None else failure.retry_after_ms / 1000

    @staticmethod
    def of(failure: Failure) -> RequestFailedError:
        """The most specific exception for this failure."""
        return _BY_CODE.get(failure.code, RequestFailedError)(failure)


class InvalidRequestError(RequestFailedError):
    """The request itself is wrong; sending it again will not help."""


class SessionBusyError(RequestFailedError):
    """The session's previous message is still being processed."""


class RateLimitedError(RequestFailedError):
    """Too many requests; `retry_after` says when the window opens."""


class RequestCancelledError(RequestFailedError):
    """Somebody cancelled the request."""


class EngineFailedError(RequestFailedError):
    """The model failed to answer this request."""


class UnavailableError(RequestFailedError):
    """The worker cannot take requests now: overloaded, loading, or going down."""


class DeadlineExceededError(RequestFailedError):
    """The request's deadline passed before its answer was complete."""


class AnswerChangedError(InferbusError):
    """Another worker has begun a streamed answer anew, in other words, where what was said cannot be taken back.

    Attributes:
        run: how often another one had begun it anew.
    """

    def __init__(self, run: int) -> None:
        super().__init__("another worker has begun the answer anew, in other words than those that were said")
        self.run = run


class ToolError(InferbusError):
    """A tool could not do what it was called for. Raised by functions that are tools: the model is told the text.

    Anything else that one raises ends the request for its caller.
    """


class ToolRoundsError(InferbusError):
    """The model calls tools, again and again, and gives no answer.

    Attributes:
        calls: the last ones, which have not been run.
        rounds: how many times calls were run before.
    """

    def __init__(self, calls: Sequence[ToolCall], rounds: int) -> None:
        super().__init__(f"the model still calls tools after {rounds} round{'' if rounds == 1 else 's'}")
        self.calls = calls
        self.rounds = rounds


class UnknownWorkerError(InferbusError):
    """Nothing is known of a worker of that name.

    Attributes:
        worker: the name.
        known: those of whom something is.
    """

    def __init__(self, worker: str, known: Sequence[str]) -> None:
        names = ", ".join(shown_in_line(name) for name in islice(known, _NAMED))
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        others = f"; there {'are' if len(known) > 1 else 'is'} {names}{more}" if known else ", nor any other"
        super().__init__(f"there is no worker {worker!r} on this broker{others}")
        self.worker = worker
        self.known = known


class WorkerLivesError(InferbusError):
    """A worker answers that was to be forgotten.

    Attributes:
        worker: its name.
    """

    def __init__(self, worker: str) -> None:
        super().__init__(f"worker {worker!r} lives: it answers; stop it first, or say --force")
        self.worker = worker


class DrainIgnoredError(InferbusError):
    """A worker that was asked to leave goes on as before.

    Attributes:
        worker: its name.
    """

    def __init__(self, worker: str) -> None:
        super().__init__(
            f"worker {worker!r} does not react: either it does not allow that (--remote-drain, which is off by "
            f"default), or this login may not publish to inferbus/workers/{worker}/drain, or it is gone"
        )
        self.worker = worker


_BY_CODE: dict[str, type[RequestFailedError]] = {
    "invalid_request": InvalidRequestError,
    "context_too_long": InvalidRequestError,
    "message_too_large": InvalidRequestError,
    "session_busy": SessionBusyError,
    "rate_limited": RateLimitedError,
    "cancelled": RequestCancelledError,
    "engine_error": EngineFailedError,
    "overloaded": UnavailableError,
    "engine_unavailable": UnavailableError,
    "shutting_down": UnavailableError,
    "deadline_exceeded": DeadlineExceededError,
}
