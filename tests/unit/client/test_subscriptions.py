"""Subscriptions: who waits hears the answer, over several connections; what was granted before is asked for again."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, cast

import pytest
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from inferbus_client.errors import BrokerRefusedError, ConnectionLostError
from inferbus_client.mqtt.paho_client import PahoClient
from inferbus_client.mqtt.subscriptions import Subscriptions

GRANTED = ReasonCode(PacketTypes.SUBACK, "Granted QoS 1")
REFUSED = ReasonCode(PacketTypes.SUBACK, "Not authorized")


class FakePaho:
    """Notes what it is asked to subscribe to."""

    protocol = MQTTProtocolVersion.MQTTv311

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def subscribe(self, wanted: list[tuple[str, int]]) -> tuple[MQTTErrorCode, int]:
        self.asked.append([name for name, _ in wanted])
        return MQTTErrorCode.MQTT_ERR_SUCCESS, len(self.asked)


class Desk:
    """Subscriptions, and a connection that hears nothing by itself."""

    def __init__(self, *, again: bool = True) -> None:
        self.paho = FakePaho()
        self.subscriptions = Subscriptions(lambda _name, _error: again)

    def add(self, *names: str) -> Future[None]:
        granted: Future[None] = Future()
        self.subscriptions.add(cast(PahoClient, self.paho), dict.fromkeys(names, 1), granted)
        return granted

    def answer(self, *reasons: Any) -> None:
        """Answer what was asked last."""
        self.subscriptions.answered(len(self.paho.asked), reasons)

    def restore(self) -> None:
        self.subscriptions.lost()
        for batch in self.subscriptions.batches(lambda _name: False):
            self.subscriptions.request(cast(PahoClient, self.paho), batch)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_whoever_waits_hears_when_all_is_granted(desk: Desk) -> None:
    granted = desk.add("a", "b")
    assert not granted.done()
    desk.answer(GRANTED, GRANTED)
    assert granted.result(0) is None
    assert desk.subscriptions.unanswered == []


def test_a_refused_one_is_not_asked_for_again(desk: Desk) -> None:
    granted = desk.add("a", "b")
    desk.answer(GRANTED, REFUSED)
    with pytest.raises(BrokerRefusedError, match="Not authorized"):
        granted.result(0)
    desk.restore()
    assert desk.paho.asked[-1] == ["a"]


def test_an_answer_may_come_on_the_next_connection(desk: Desk) -> None:
    granted = desk.add("a")
    desk.restore()
    assert not granted.done()
    desk.answer(GRANTED)
    assert granted.result(0) is None


def test_without_another_connection_there_is_an_error(desk: Desk) -> None:
    granted = desk.add("a")
    desk.subscriptions.abandon()
    with pytest.raises(ConnectionLostError):
        granted.result(0)


def test_nobody_is_left_waiting_whose_turn_had_not_come(desk: Desk) -> None:
    """The network thread does what it is asked to, while it lives."""
    before: Future[None] = Future()
    after: Future[None] = Future()
    desk.subscriptions.expect(before)
    desk.subscriptions.abandon()
    desk.subscriptions.expect(after)
    for granted in (before, after):
        with pytest.raises(ConnectionLostError):
            granted.result(0)


def test_what_was_granted_before_is_asked_for_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.add("a")
    desk.answer(GRANTED)
    desk.restore()
    desk.answer(REFUSED)
    assert desk.subscriptions.unheard is not None
    assert desk.subscriptions.due() == {}
    monkeypatch.setattr("time.monotonic", lambda: 1e12)
    assert desk.subscriptions.due() == {"a": 1}
    assert desk.subscriptions.due() == {}  # asked for, and not answered yet
    desk.restore()
    desk.answer(GRANTED)
    assert desk.subscriptions.unheard is None


@pytest.mark.parametrize("by", ["its user", "unsubscribing"])
def test_what_nobody_wants_any_more_is_not_asked_for_again(by: str) -> None:
    desk = Desk(again=by == "unsubscribing")
    desk.add("a")
    desk.answer(GRANTED)
    desk.restore()
    desk.answer(REFUSED)
    desk.subscriptions.drop("a")
    assert desk.subscriptions.unheard is None
    desk.restore()
    assert len(desk.paho.asked) == 2


def test_very_many_go_in_several_packets(desk: Desk) -> None:
    names = [f"{number:060}" for number in range(200)]
    desk.add(*names)
    assert [name for packet in desk.paho.asked for name in packet] == names
    assert max(len("".join(packet)) for packet in desk.paho.asked) <= 2048


def test_what_is_suspected_goes_in_small_groups_at_the_end(desk: Desk) -> None:
    desk.add(*(f"t{number}" for number in range(100)))
    batches = list(desk.subscriptions.batches(lambda name: name.startswith("t1")))
    assert [len(batch) for batch in batches] == [89, *[1] * 11]
    assert all(name.startswith("t1") for batch in batches[1:] for name in batch)
