"""What a member of a group keeps in its own memory, whatever strangers send."""

from __future__ import annotations

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_worker.group.reopening import _MOST_KNOWN
from support.rooms import Rooms


@pytest.mark.usefixtures("in_groups")
def test_requests_that_others_take_are_kept_by_their_size() -> None:
    rooms = Rooms(queue_size=10_000, max_message_bytes=1_100_000)
    assert rooms.shared is not None
    known = rooms.shared.membership.endings._reopening._known
    for number in range(12):
        rooms.ask(f"s{number}", "x" * 1_000_000)
    assert 2 * sum(len(body.payload) for body, _ in known.values()) <= _MOST_KNOWN
    assert known
    assert len(rooms.work()) == 12


@pytest.mark.usefixtures("in_groups")
def test_a_request_that_is_lost_while_its_outcome_is_on_its_way_leaves_nothing() -> None:
    rooms = Rooms()
    assert rooms.shared is not None
    holdings, courier = rooms.shared.membership.holdings, rooms.shared.courier
    rooms.ask()
    job = rooms.take()
    courier.holds = True
    rooms.turns.run(job)
    ((name, token),) = holdings.all()
    courier.store.client.hset(f"{courier.prefix}job:{name}", "token", f"another than {token}")
    holdings.lose(name)
    courier.comes_back()
    assert rooms.sent() == []
    assert not holdings._lost
    assert job.mark(Failure("cancelled")) is False
