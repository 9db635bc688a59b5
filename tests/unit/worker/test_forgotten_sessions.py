"""A session that its group has forgotten, and that somebody comes back to: nothing of it is remembered, anywhere."""

from __future__ import annotations

from typing import cast

import pytest

from inferbus_worker.group.membership import Membership
from support.rooms import Rooms, ScriptedEngine

_NAME = "general/s1"


def member(rooms: Rooms) -> Membership:
    assert rooms.shared is not None
    return rooms.shared.membership


def forget(rooms: Rooms) -> None:
    """Its worker is lost before it could delete the history: that goes by itself, an hour later."""
    assert rooms.shared is not None
    assert rooms.shared.courier.ask(member(rooms).group.drop_session(_NAME))


def heard(rooms: Rooms, message: str) -> list[str]:
    """What the model is told with this question, in whatever worker."""
    rooms.ask(message=message)
    rooms.clock.pass_(1)  # whoever has the session in its cache is not waited for any more
    rooms.work()
    call = cast("ScriptedEngine", rooms.slot.engine).calls[-1]
    return [cast("str", message["content"]) for message in call.messages if message["role"] == "user"]


@pytest.mark.usefixtures("in_groups")
def test_nothing_of_it_comes_back() -> None:
    rooms = Rooms()
    for number in range(3):
        rooms.answer(message=f"old {number}")
    rooms.clock.pass_(60)
    forget(rooms)
    said = []
    for number in range(6):
        beside = Rooms(beside=rooms) if number % 2 else rooms
        said.append(f"new {number}")
        assert heard(beside, said[-1]) == said
        assert not len(member(beside).holdings)


@pytest.mark.usefixtures("in_groups")
def test_what_another_worker_has_of_it_at_hand_is_not_taken_for_it() -> None:
    rooms = Rooms()
    other = Rooms(beside=rooms)
    rooms.answer(message="old 0")
    assert heard(other, "old 1") == ["old 0", "old 1"]
    rooms.clock.pass_(60)
    forget(rooms)
    for number in range(2):
        heard(rooms, f"new {number}")
    assert heard(other, "new 2") == ["new 0", "new 1", "new 2"]


@pytest.mark.usefixtures("in_groups")
def test_a_history_that_is_newer_holds_up_no_lease() -> None:
    """As a store may have it that has forgotten what it was told last."""
    rooms = Rooms()
    rooms.answer()
    assert rooms.shared is not None
    client, group = rooms.shared.courier.store.client, member(rooms).group
    client.lset(group._history(_NAME), 0, str(2**50))
    rooms.answer()
    assert not len(member(rooms).holdings)
    assert not rooms.shared.courier.names("job:")
