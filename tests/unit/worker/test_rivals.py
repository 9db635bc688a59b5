"""Which of two workers of one id goes, and what is left over of one that has ended."""

from __future__ import annotations

from itertools import permutations

import pytest

from inferbus_client.contract.presence import Instance, Presence, decode_announcement
from inferbus_worker.bus.rivals import Rivals, new_instance
from support.rooms import FakeClock

EARLY = Instance(mark="a", started=1000.0, host="kitchen", pid=42)
LATE = Instance(mark="b", started=2000.0)


def at(instance: Instance, connection: int) -> Instance:
    return instance.model_copy(update={"connection": connection})


class TestTheSecond:
    def test_goes_when_it_has_lost_its_connection_and_the_first_has_come_back(self) -> None:
        rivals = Rivals("w", LATE)
        assert rivals.heard(at(EARLY, 1), 1) is None  # its Last Will: we have just taken its connection
        reason = rivals.heard(at(EARLY, 2), 2)
        assert reason is not None
        assert reason.startswith("another worker already has the id 'w': started 1970-01-01 00:16:40 UTC on 'kitchen'")
        assert "process 42" in reason
        assert "--worker-id" in reason

    def test_goes_a_round_later_where_it_first_hears_of_the_first_then(self) -> None:
        rivals = Rivals("w", LATE)
        assert rivals.heard(at(EARLY, 2), 2) is None
        assert rivals.heard(at(EARLY, 3), 3)

    def test_stays_while_the_broker_has_taken_nothing_from_it(self) -> None:
        rivals = Rivals("w", LATE)
        for connection in range(1, 5):
            assert rivals.heard(at(EARLY, connection), 1) is None

    def test_needs_not_know_where_the_first_runs(self) -> None:
        rivals = Rivals("w", LATE)
        rivals.heard(at(EARLY, 1), 1)
        nameless = EARLY.model_copy(update={"host": None, "pid": None, "connection": 2})
        reason = rivals.heard(nameless, 2)
        assert reason is not None
        assert "None" not in reason

    def test_logs_no_line_of_another_s_making(self) -> None:
        rivals = Rivals("w", LATE)
        rivals.heard(at(EARLY, 1), 1)
        forged = EARLY.model_copy(update={"host": "x\nERROR all is lost", "connection": 2})
        assert "\n" not in (rivals.heard(forged, 2) or "")


class TestWhatIsLeftOver:
    """Nobody's presence but a living one's ends a worker."""

    def test_of_an_earlier_run_stops_nobody(self) -> None:
        rivals = Rivals("w", LATE)
        for connection in range(1, 10):  # a broker that restores the same old state on every restart
            assert rivals.heard(at(EARLY, 7), connection) is None

    def test_that_grows_older_stops_nobody(self) -> None:
        rivals = Rivals("w", LATE)
        for connection, old in enumerate([3, 2, 1, 2, 3], start=1):
            assert rivals.heard(at(EARLY, old), connection) is None

    def test_of_many_earlier_runs_stops_nobody(self) -> None:
        rivals = Rivals("w", LATE)
        for run in range(100):
            assert rivals.heard(EARLY.model_copy(update={"mark": f"a{run}", "connection": run + 1}), run + 1) is None


class TestWhatAnyoneMaySay:
    """Where a broker has no access rules: only what throws us out again and again is taken for a rival."""

    def test_after_a_connection_was_lost_once_stops_nobody(self) -> None:
        clock = FakeClock()
        rivals = Rivals("w", LATE, clock=clock)
        rivals.heard(at(EARLY, 1), 1)
        clock.pass_(3600)  # a broker was restarted
        for number in range(2, 10):
            assert rivals.heard(at(EARLY, number), 2) is None

    def test_across_every_loss_of_a_connection_that_had_held_stops_nobody(self) -> None:
        clock = FakeClock()
        rivals = Rivals("w", LATE, clock=clock)
        for connection in range(1, 10):
            for number in range(3):
                assert rivals.heard(at(EARLY, 10 * connection + number), connection) is None
            clock.pass_(60)

    def test_while_the_connection_holds_stops_nobody(self) -> None:
        clock = FakeClock()
        rivals = Rivals("w", LATE, clock=clock)
        rivals.heard(at(EARLY, 1), 1)
        rivals.heard(LATE, 2)  # lost at once, for whatever reason
        clock.pass_(60)
        for number in range(2, 10):
            assert rivals.heard(at(EARLY, number), 2) is None

    def test_is_not_logged_line_by_line(self, caplog: pytest.LogCaptureFixture) -> None:
        rivals = Rivals("w", EARLY, clock=FakeClock())
        for number in range(1000):
            rivals.heard(LATE.model_copy(update={"mark": f"b{number}"}), 2)
        assert len(caplog.records) == 1


class TestTheFirst:
    def test_stays_and_says_who_will_end(self, caplog: pytest.LogCaptureFixture) -> None:
        rivals = Rivals("w", EARLY)
        for connection in range(1, 6):
            assert rivals.heard(at(LATE, connection), connection + 1) is None
        assert [record.message for record in caplog.records] == [
            "another worker has the id 'w' and will have to end: started 1970-01-01 00:33:20 UTC"
        ]

    def test_holds_out_as_long_as_later_ones_come(self) -> None:
        rivals = Rivals("w", EARLY)
        for run in range(3):
            rivals.heard(LATE.model_copy(update={"mark": f"b{run}"}), 2)
            assert rivals.hold_out(True)
        assert not rivals.hold_out(True)  # nobody has been seen since: it is something else

    def test_does_not_hold_out_against_an_earlier_one(self) -> None:
        rivals = Rivals("w", LATE)
        rivals.heard(at(EARLY, 1), 1)
        assert not rivals.hold_out(True)


class TestTakenOverInTheBrokersOwnWords:
    def test_it_comes_back_to_see_by_whom(self) -> None:
        rivals = Rivals("w", EARLY)
        rivals.heard(EARLY, 1)
        assert rivals.hold_out(False)

    def test_it_does_not_come_back_where_it_could_not_see_by_whom(self) -> None:
        """Reading our own presence is not allowed: nothing of ours has come back."""
        rivals = Rivals("w", EARLY)
        rivals.heard(LATE, 1)
        assert not rivals.hold_out(False)


@pytest.mark.parametrize("started", [1000.0, 0.0, 253_402_300_799.0])
def test_equal_times_are_told_apart_and_of_any_two_one_goes(started: float) -> None:
    runs = [Instance(mark=mark, started=started) for mark in ("a", "b", "c")]
    for one, other in permutations(runs, 2):
        assert one.precedes(other) != other.precedes(one)
        rivals = Rivals("w", one)
        rivals.heard(at(other, 1), 1)
        assert (rivals.heard(at(other, 2), 2) is not None) == other.precedes(one)


def test_no_two_runs_are_the_same() -> None:
    assert new_instance().mark != new_instance().mark


@pytest.mark.parametrize("started", ["NaN", "1e300", "-1", '"yesterday"'])
def test_a_time_that_is_none_is_no_announcement(started: str) -> None:
    payload = f'{{"worker": "w", "state": "ready", "instance": {{"mark": "a", "started": {started}}}}}'
    assert decode_announcement(Presence, payload.encode()) is None


def test_presence_without_an_instance_is_read_as_before() -> None:
    presence = decode_announcement(Presence, b'{"worker": "w", "state": "ready"}')
    assert presence is not None
    assert presence.instance is None
