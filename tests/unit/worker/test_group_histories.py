"""What a member of a group keeps at hand of its sessions' histories."""

from __future__ import annotations

from typing import Any, cast

import pytest

from inferbus_worker.group.histories import Histories, Wanted
from inferbus_worker.state.conversation import Change, Conversation, Remembered
from support.redis_calls import group


class _Courier:
    """Reaches a store in which there is nothing, and counts how many histories it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def ask_all(self, calls: list[Any]) -> list[Any]:
        self.asked += len(calls) // 2
        return [(0, []), (0, None)] * (len(calls) // 2)


@pytest.mark.parametrize("messages", [(), (Remembered({"role": "user", "content": "hello"}, 1, 100),)])
def test_no_more_are_at_hand_than_sessions_are_kept(messages: tuple[Remembered, ...]) -> None:
    """However little each of them takes: sessions that come once would else fill the memory."""
    courier, said = _Courier(), Conversation().after(Change(messages))
    histories = Histories(cast(Any, courier), group(), 1_000_000, max_sessions=2)
    for name in "abc":
        histories.keep(name, 1, said)
    histories.read([Wanted("b", 1), Wanted("c", 1)])
    assert courier.asked == 0
    histories.read([Wanted("a", 1)])
    assert courier.asked == 1
    histories.read([Wanted("c", 1)])  # used after b, which made way
    assert courier.asked == 1


def test_one_that_is_kept_anew_takes_nobody_s_place() -> None:
    courier = _Courier()
    histories = Histories(cast(Any, courier), group(), 1_000_000, max_sessions=2)
    for name, version in (("a", 1), ("b", 1), ("b", 2)):
        histories.keep(name, version, Conversation())
    histories.read([Wanted("a", 1), Wanted("b", 2)])
    assert courier.asked == 0
