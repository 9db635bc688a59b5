"""What the broker delivers again to a worker of a group, since it was lost before it had acknowledged it."""

from __future__ import annotations

from typing import Any

import pytest

from support.rooms import Rooms, replies, texts
from support.shared import Shared

pytestmark = pytest.mark.usefixtures("in_groups")

#: Acknowledged when it is safe: so a request without ids is known by its delivery.
_SAFELY: dict[str, Any] = {"ack": "after-reply", "worker_id": "w1"}


def deliver(rooms: Rooms, fields: dict[str, str], *, dup: bool = False) -> list[dict[str, Any]]:
    """One request from the broker, and its whole turn where there is one."""
    request = {"sessionId": "s1", "message": "hello", "reply": "json", **fields}
    said = rooms.receive("general/user_input", request, qos=1, ack_id=1, dup=dup)
    return replies([*said, *(() if dup else rooms.work())])


@pytest.mark.parametrize("ids", [{}, {"requestId": "r"}, {"requestId": "r", "clientId": "c"}])
def test_it_is_answered_with_the_very_same_words(ids: dict[str, str]) -> None:
    first = Rooms(**_SAFELY)
    said = deliver(first, ids)
    assert [reply["type"] for reply in said] == ["accepted", "done"]
    came_back = Rooms(beside=first, **_SAFELY)
    assert deliver(came_back, ids, dup=True) == said[-1:]
    assert came_back.engine.calls == []


def test_who_asks_again_himself_hears_of_no_lower_run_than_before() -> None:
    """A client drops what is said in a run before the one that it has heard of."""
    ids = {"sessionId": "s1", "message": "hello", "reply": "json", "requestId": "r", "clientId": "c"}
    rooms = Rooms(**_SAFELY)
    rooms.receive("general/user_input", ids, qos=1, ack_id=1)
    rooms.take()
    shared(rooms).membership.hand_over()
    assert {reply["run"] for reply in replies(rooms.work())} == {1}
    (again,) = replies(rooms.receive("general/user_input", ids, qos=1, ack_id=2))
    assert (again["type"], again["run"], again["seq"]) == ("done", 1, 0)


def test_a_worker_that_leaves_says_itself_what_it_has_ended() -> None:
    """Others would say it a second time while it is on its way to the broker."""
    rooms = Rooms(**_SAFELY)
    sibling = Rooms(beside=rooms, worker_id="w2", ack="after-reply")
    rooms.clock.pass_(rooms.settings.lease)  # from then on each takes up what others have lost
    rooms.ask()
    rooms.turns.run(rooms.take())
    membership = shared(rooms).membership
    membership.hand_over()
    shared(sibling).look()
    assert texts(sibling.sent()) == []
    membership.keeper.give_back(membership.holdings.all())
    shared(sibling).look()
    assert texts(sibling.sent()) == ["fine"]
    assert texts(rooms.sent()) == []


def shared(rooms: Rooms) -> Shared:
    assert rooms.shared is not None
    return rooms.shared
