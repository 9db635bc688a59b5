"""What a stress run is to do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from inferbus_client.cli.stress.goodput import Goodput
from inferbus_client.exchange.options import AskOptions

#: An open loop has to end some time.
OPEN_LOOP_DURATION: Final = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One level of load. Times are seconds.

    A closed loop has `clients` conversations, each of which sends its next message when the last one is answered. An
    open loop sends `request_rate` requests per second, whatever becomes of them, each in a conversation of its own; at
    an infinite rate, as many as `max_concurrency` lets it.

    Attributes:
        messages: of each client, in a closed loop.
        most_messages: of each client, in a closed loop that has a duration; None: as many as it has time for.
        stateless: whether each message stands for itself, so that the worker keeps nothing of it.
        gives_up: whether a refusal that each further request would meet, or no word from anybody, ends the run.
        request_rate: per second; None makes the loop closed.
        burstiness: how evenly an open loop's requests come; see `arrivals`.
        duration: when to send no more; None: a closed loop ends with its messages, an open one after 30 s.
        ramp_up: over how long the load grows to its full height.
        max_concurrency: an open loop waits when so many are in flight; that wait counts as latency.
        num_warmups: requests before the measurement.
        settle: how long to listen, afterwards, for what comes late or twice.
        goodput: which answers count as good ones.
    """

    clients: int = 10
    messages: int = 10
    request_rate: float | None = None
    burstiness: float = 1.0
    duration: float | None = None
    ramp_up: float = 0.0
    max_concurrency: int = 1000
    num_warmups: int = 1
    settle: float = 0.5
    seed: int = 0
    stream: bool = True
    prompts: tuple[str, ...] = ("This is message {message} of client {client}.",)
    options: AskOptions = field(default_factory=AskOptions)
    goodput: Goodput = field(default_factory=Goodput)
    most_messages: int | None = None
    stateless: bool = False
    gives_up: bool = False

    @property
    def is_open(self) -> bool:
        return self.request_rate is not None

    @property
    def is_unpaced(self) -> bool:
        """Whether requests go as fast as they can."""
        return self.request_rate is not None and math.isinf(self.request_rate)

    @property
    def has_schedule(self) -> bool:
        """Whether requests are due at times that chance has drawn."""
        return self.is_open and not self.is_unpaced

    @property
    def ends_after(self) -> float | None:
        return OPEN_LOOP_DURATION if self.is_open and self.duration is None else self.duration

    @property
    def total(self) -> int | None:
        """How many requests it will be, where that is known in advance."""
        return None if self.is_open or self.duration is not None else self.clients * self.messages

    def numbers(self) -> Iterable[int]:
        """The numbers of each client's messages, in a closed loop."""
        most = self.messages if self.duration is None else self.most_messages
        return itertools.count() if most is None else range(most)

    def prompt(self, client: int, message: int) -> str:
        """What a client says; every one of its messages differs, so that no cache answers them all."""
        text = self.prompts[(client + message) % len(self.prompts)]
        return text.replace("{client}", str(client)).replace("{message}", str(message))

    def describe(self) -> str:
        if self.is_unpaced:
            return f"open loop, as fast as they go, at most {self.max_concurrency} at once, {self.ends_after:g} s"
        if self.is_open:
            return f"open loop, {self.request_rate:g} requests/s, burstiness {self.burstiness:g}, {self.ends_after:g} s"
        length = f"{_counted(self.messages, 'message')} each" if self.duration is None else f"{self.duration:g} s"
        return f"closed loop, {_counted(self.clients, 'client')}, {length}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
