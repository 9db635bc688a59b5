"""What the broker at hand does for the members of a group, tried on a private share that nobody else knows."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from paho.mqtt.enums import MQTTProtocolVersion

from inferbus_client.contract import topics
from inferbus_client.errors import BrokerError
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions

#: Messages that two members are dealt, and how many of them the slow one says to take unacknowledged.
MESSAGES: Final = 20
WINDOW: Final = 4
#: Seconds for something to come; and of silence, after which no more does.
_COMES: Final = 2.0
_QUIET: Final = 0.4
_CONNECT: Final = 5.0
#: The broker keeps what a member leaves behind so long, if all else fails.
_KEPT: Final = 30


@dataclass(frozen=True, slots=True)
class Dealing:
    """What became of `MESSAGES` messages, dealt to a slow member, which died, and to a quick one.

    Attributes:
        to_quick: what the quick one got while the other was slow.
        most_open: how many the slow one held unacknowledged; None where it could not say how many it takes.
        handed_over: what the quick one got of the other's when that had died.
        to_dead: of as many more, what the quick one did not get while the other was away.
        kept: of all those, what the dead one got when it came back; None where it did not come back.
    """

    to_quick: int
    most_open: int | None
    handed_over: int
    to_dead: int
    kept: int | None

    @property
    def open(self) -> int:
        """What the slow one had been dealt, and not acknowledged, when it died."""
        return MESSAGES - self.to_quick - (self.most_open is not None)


class _Member:
    """One link, and what it has heard."""

    def __init__(self, options: LinkOptions) -> None:
        self.heard: list[Incoming] = []
        self.acknowledges = True
        self.link = Link(options, on_message=self._received)

    def _received(self, message: Incoming) -> None:
        self.heard.append(message)
        if self.acknowledges:
            self.link.acknowledge(message.ack_id)

    def acknowledge_one(self) -> None:
        first = self.heard[0].ack_id
        self.link.call(lambda: self.link.acknowledge(first))

    def wait(self, count: int) -> bool:
        """Whether so many have come in time."""
        return _until(lambda: len(self.heard) >= count, _COMES)

    def settle(self) -> int:
        """Wait until no more come; how many there are."""
        ends = time.monotonic() + _COMES
        while time.monotonic() < ends:
            before = len(self.heard)
            if not _until(lambda: len(self.heard) > before, _QUIET):  # noqa: B023 - asked before it changes
                break
        return len(self.heard)


class ShareTrial:
    """Tries a share below a topic of its own; a context manager, which leaves nothing behind.

    Args:
        options: how to reach the broker; the client id is the beginning of those that are used.
    """

    def __init__(self, options: LinkOptions) -> None:
        self._options = replace(options, manual_ack=True)
        mark = uuid.uuid4().hex
        self._topic = f"inferbus/doctor/{mark}"
        self._filter = topics.shared(f"doctor-{mark}", self._topic)
        self._publisher = _Member(replace(self._options, client_id=f"{options.client_id}-p"))

    def __enter__(self) -> Self:
        self._publisher.link.connect(_CONNECT)
        self._options = replace(self._options, url=self.link.url, others=())  # of several, all go to this one
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.link.close()

    @property
    def link(self) -> Link:
        """The connection that asks."""
        return self._publisher.link

    def is_delivered(self) -> bool:
        """Whether what is published reaches a member of the share.

        Raises:
            BrokerError: the subscription is refused, or the connection lost.
        """
        with self._joined("d") as member:
            self._publish(1)
            return member.wait(1)

    def deals(self, *, persistent: bool) -> Dealing:
        """Let a slow member and a quick one share, and the slow one die.

        Args:
            persistent: whether the broker is to keep what it knows of the slow one, which then comes back.

        Raises:
            BrokerError: a connection was lost.
        """
        own: dict[str, Any] = {"session_expiry": _KEPT} if persistent else {}
        slow_id = f"{self._options.client_id}-s"
        with self._joined("q") as quick:
            try:
                with self._joined("s", receive_maximum=WINDOW, **own) as slow:
                    slow.acknowledges = False
                    self._publish(MESSAGES)
                    to_quick, _ = quick.settle(), slow.settle()
                    is_told = slow.link.is_v5 and bool(slow.heard)
                    if is_told:
                        slow.acknowledge_one()
                        slow.settle()
                    most_open = len(slow.heard) - 1 if is_told else None
                    slow.link.vanish()
                handed_over = quick.settle() - to_quick
                self._publish(MESSAGES)
                to_dead = to_quick + handed_over + MESSAGES - quick.settle()
                kept = self._come_back(slow_id) if persistent else None
            finally:
                if persistent:
                    self._forget(slow_id)
        return Dealing(to_quick, most_open, handed_over, to_dead, kept)

    @contextmanager
    def _joined(self, letter: str, **more: Any) -> Iterator[_Member]:
        member = _Member(replace(self._options, client_id=f"{self._options.client_id}-{letter}", **more))
        try:
            member.link.connect(_CONNECT)
            member.link.subscribe({self._filter: 1})
            yield member
        finally:
            member.link.close()

    def _come_back(self, client_id: str) -> int:
        member = _Member(replace(self._options, client_id=client_id, session_expiry=_KEPT))
        try:
            member.link.connect(_CONNECT)
            member.link.forget_session()
            return member.settle()
        finally:
            member.link.close()

    def _forget(self, client_id: str) -> None:
        """However far it got: a connection that asks for nothing to be kept ends what was."""
        version = MQTTProtocolVersion.MQTTv5 if self.link.is_v5 else MQTTProtocolVersion.MQTTv311
        member = _Member(replace(self._options, client_id=client_id, protocol=version))
        with suppress(BrokerError):
            member.link.connect(_CONNECT)
        member.link.close()

    def _publish(self, count: int) -> None:
        for number in range(count):
            self.link.publish(self._topic, str(number).encode(), qos=1)


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True
