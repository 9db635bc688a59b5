"""What an exchange asks of whoever drives it, and what it is told."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum

from inferbus_client.assembly import AnyReply
from inferbus_client.errors import BrokerError, RequestFailedError
from inferbus_client.wire import Accepted, Delta


class Signal(Enum):
    """Events that are no reply."""

    RECONNECTED = "reconnected"


@dataclass(frozen=True, slots=True)
class TextReply:
    """A payload that is no JSON reply: the worker answers in text only."""

    text: str


Event = AnyReply | TextReply | Signal | BrokerError


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this many seconds; `because` of a refusal, where the request is to be sent again after it."""

    seconds: float
    because: RequestFailedError | None = None


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait at most this many seconds for an event, then send it in (None: there was none)."""

    seconds: float


Step = Pause | Receive | Accepted | Delta

#: An exchange's logic; see `Exchange.steps`.
Steps = Generator[Step, Event | None, None]


def next_step(steps: Steps, event: Event | None) -> Step | None:
    """Send an event in (None at first, and where there was none); None at the end."""
    try:
        return steps.send(event)
    except StopIteration:
        return None
