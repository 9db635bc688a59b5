"""What an exchange asks of whoever drives it, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum

from inferbus_client.contract.wire import Accepted, Delta
from inferbus_client.errors import BrokerError, RequestFailedError
from inferbus_client.exchange.answer import Restarted
from inferbus_client.exchange.assembly import AnyReply


class Signal(Enum):
    """Events that are no reply."""

    RECONNECTED = "reconnected"
    #: It is this request's turn in its session.
    TURN = "turn"
    #: The broker has answered the subscription of its reply topic.
    GRANTED = "granted"


@dataclass(frozen=True, slots=True)
class TextReply:
    """A payload that is no JSON reply: the worker answers in text only."""

    text: str


Event = AnyReply | TextReply | Signal | BrokerError
#: Hands an event to whoever waits for it, from any thread; must not block.
Deliver = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait at most this many seconds for an event, then send it in (None: there was none)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Retry:
    """The request was refused, and will be sent again after so many seconds."""

    because: RequestFailedError
    seconds: float


Step = Receive | Accepted | Delta | Restarted | Retry

#: An exchange's logic; see `Exchange.steps`.
Steps = Generator[Step, Event | None, None]


def next_step(steps: Steps, event: Event | None) -> Step | None:
    """Send an event in (None at first, and where there was none); None at the end."""
    try:
        return steps.send(event)
    except StopIteration:
        return None
