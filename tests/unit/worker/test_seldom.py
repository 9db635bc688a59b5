"""A stranger's flood is a line a second in the log, whatever it is made of."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from inferbus_worker.seldom import Seldom
from inferbus_worker.state.conversation import Change, remembered
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.memory.sessions import MemorySessions
from support.rooms import FakeClock, Rooms


def test_one_line_a_second_and_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    seldom = Seldom(logging.getLogger("inferbus.test"), clock=clock)
    for number in range(30):
        seldom.warning("a stranger said %r", number)
        clock.pass_(0.1)
    assert [record.message for record in caplog.records] == [
        "a stranger said 0",
        "a stranger said 10 (9 more like this were left out)",
        "a stranger said 20 (9 more like this were left out)",
    ]


def test_after_a_rest_nothing_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    seldom = Seldom(logging.getLogger("inferbus.test"), clock=clock)
    for _ in range(3):
        seldom.warning("again")
        clock.pass_(5)
    assert [record.message for record in caplog.records] == ["again"] * 3


FLOODS: dict[str, tuple[str, dict[str, Any]]] = {
    "a foreign reply topic": ("general/user_input", {"message": "hello", "replyTopic": "another/s/topic"}),
    "a bad cancel": ("general/cancel/s1", {"requestId": {"no": "text"}}),
}


@pytest.mark.parametrize(("topic", "payload"), FLOODS.values(), ids=FLOODS)
def test_a_flood_fills_no_log(topic: str, payload: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    rooms = Rooms()
    for _ in range(500):
        rooms.receive(topic, payload)
    assert 1 <= sum("ignored" in record.message for record in caplog.records) <= 5


def test_a_flood_of_conversations_that_are_too_large_to_keep_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    store = MemorySessions(1000, 60, max_bytes=4000)
    for number in range(200):
        claim = store.claim(SessionKey("general", f"s{number}"))
        assert claim is not None
        assert claim.commit(Change([remembered({"role": "user", "content": "x" * 5000}, 1)]))
        claim.release()
    assert 1 <= len(caplog.records) <= 5
