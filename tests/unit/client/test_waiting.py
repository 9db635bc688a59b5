"""What a person is told while an answer does not come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from inferbus_client.cli.lookout import Lookout
from inferbus_client.cli.waiting import Waiting
from inferbus_client.client import Client
from inferbus_client.contract.presence import Presence
from inferbus_client.contract.wire import Accepted, Failure
from inferbus_client.errors import BrokerRefusedError, RequestFailedError
from inferbus_client.settings.client import ClientSettings


class Bus:
    """Stands for a client: a connection, and what workers said on it."""

    def __init__(self, *said: Presence) -> None:
        self.settings = ClientSettings(project="general")
        self.is_connected = True
        self.said = {one.worker: one for one in said}
        self.refuses = False

    def workers(self) -> dict[str, Presence]:
        if self.refuses:
            raise BrokerRefusedError("no")
        return self.said


def presence(**fields: Any) -> Presence:
    return Presence.model_validate(
        {"worker": "w1", "state": "ready", "model": "tiny", "projects": ["general"], **fields}
    )


def begin(bus: Bus) -> tuple[Waiting, SimpleNamespace]:
    """A wait that begins at 0 of its clock, and a lookout that knows what there is to know."""
    time = SimpleNamespace(now=0.0)
    lookout = Lookout(cast("Client", bus))
    lookout.look()
    return Waiting(cast("Client", bus), lookout, clock=lambda: time.now), time


def accepted(position: int, eta_ms: int | None = None) -> Accepted:
    return Accepted(request_id="r", session_id="s", seq=0, queue_position=position, eta_ms=eta_ms)


def test_a_connection_that_is_lost_meanwhile_says_nothing_of_workers() -> None:
    """In the status line's own thread nobody would hear of it."""
    bus = Bus(presence(state="loading"))
    lookout = Lookout(cast("Client", bus))
    lookout.look()
    bus.refuses = True
    assert lookout.words() == ""


def test_the_place_in_the_queue_and_what_is_left_of_the_wait() -> None:
    waiting, time = begin(Bus(presence()))
    assert waiting.words() == "waiting for the worker"
    tell = waiting.options()["on_accepted"]
    assert tell is not None
    tell(accepted(3, 12_000))
    assert waiting.words() == "place 3 in the queue, about 12 s"
    time.now = 7.5
    assert waiting.words() == "place 3 in the queue, about 5 s"
    time.now = 20.0
    assert waiting.words() == "place 3 in the queue"
    tell(accepted(2))
    assert waiting.words() == "place 2 in the queue"
    tell(accepted(0, 100))
    assert waiting.words() == "thinking"


def test_a_refusal_counts_down_until_it_is_tried_again() -> None:
    waiting, time = begin(Bus(presence()))
    tell = waiting.options()["on_retry"]
    assert tell is not None
    tell(RequestFailedError.of(Failure("rate_limited", retry_after_ms=48_000)), 48.0)
    assert waiting.words() == "rate limited, trying again in 48 s"
    time.now = 40.2
    assert waiting.words() == "rate limited, trying again in 8 s"
    time.now = 48.1
    assert waiting.words() == "waiting for the worker"
    tell(RequestFailedError.of(Failure("overloaded")), 1.0)
    assert waiting.words() == "the worker is overloaded, trying again in 1 s"


def test_a_connection_that_is_away_is_said_whatever_else_is() -> None:
    bus = Bus(presence())
    waiting, _ = begin(bus)
    bus.is_connected = False
    assert waiting.words() == "no connection to the broker, trying again"


def test_nobody_who_serves() -> None:
    for bus, words in (
        (Bus(), "no worker serves general: see `inferbus doctor`"),
        (Bus(presence(projects=["other"])), "no worker serves general: see `inferbus doctor`"),
        (Bus(presence(state="loading")), "no worker serves general (w1 is loading): see `inferbus doctor`"),
        (
            Bus(presence(identity="topic")),
            "no worker serves general (w1 does so with --identity topic): see `inferbus doctor`",
        ),
        (Bus(presence()), "waiting for the worker"),
    ):
        waiting, time = begin(bus)
        assert waiting.words() == "waiting for the worker"
        time.now = 2.0
        assert waiting.words() == words


def test_a_broker_that_does_not_say_who_serves() -> None:
    bus = Bus()
    bus.refuses = True
    waiting, time = begin(bus)
    time.now = 2.0
    assert waiting.words() == "waiting for the worker"
