"""Conversations and the view of a group in the store that workers share."""

from __future__ import annotations

import pytest

from inferbus_worker.state.redis.holdings import Turn
from support.redis_calls import Store, admit, bid, end, group, live_through, run, wait, written


class TestHistories:
    def test_a_turn_is_appended_and_old_ones_go(self, store: Store) -> None:
        one = group()
        assert store.ask(one.history("s")) == (0, [])
        assert store.ask(one.append("s", 1, Turn(b"h1", 0, 0, False, [b"a", b"b"])))
        assert store.ask(one.append("s", 2, Turn(b"h2", 0, 0, False, [b"c", b"d"])))
        assert store.ask(one.append("s", 3, Turn(b"h3", 1, 2, False, [b"e"])))
        assert store.ask(one.history("s")) == (3, [b"h3", b"b", b"e"])

    @pytest.mark.parametrize(
        ("forgotten", "dropped", "left"),
        [
            (0, 0, b"abcd"),
            (1, 0, b"bcd"),
            (3, 0, b"d"),
            (4, 0, b""),
            (9, 9, b""),
            (0, 4, b""),
            (3, 3, b""),
            (2, 1, b"c"),
        ],
    )
    def test_what_goes_is_what_goes_in_memory(self, store: Store, forgotten: int, dropped: int, left: bytes) -> None:
        one = group()
        store.ask(one.append("s", 1, Turn(b"h", 0, 0, False, [b"a", b"b", b"c", b"d"])))
        store.ask(one.append("s", 2, Turn(b"H", forgotten, dropped, False, [b"x"])))
        _, (header, *messages) = store.ask(one.history("s"))
        assert (header, b"".join(messages)) == (b"H", left + b"x")

    @pytest.mark.parametrize("version", [1, 2])
    def test_the_same_again_changes_nothing(self, store: Store, version: int) -> None:
        one = group()
        for number in range(1, version + 1):
            for _ in range(2):
                assert store.ask(one.append("s", number, Turn(b"h", 0, 0, False, [b"a"])))
        assert store.ask(one.history("s")) == (version, [b"h", *[b"a"] * version])

    def test_what_comes_too_late_is_not_written(self, store: Store) -> None:
        one = group()
        for number in (1, 2, 3):
            store.ask(one.append("s", number, Turn(b"h", 0, 0, False, [b"a"])))
        assert not store.ask(one.append("s", 2, Turn(b"h", 0, 0, True, [b"b"])))
        assert not store.ask(one.append("s", 5, Turn(b"h", 0, 0, False, [b"b"])))
        assert store.ask(one.append("s", 5, Turn(b"h", 0, 0, True, [b"b"])))
        assert store.ask(one.history("s")) == (5, [b"h", b"b"])

    def test_one_lives_longer_than_its_session_and_not_for_ever(self, store: Store) -> None:
        one = group(session_ttl=100)
        call = one.append("s", 1, Turn(b"h", 0, 0, False, []))
        store.ask(call)
        assert 100_000 < int(store.client.pttl(call.keys[0])) <= 3_700_000

    def test_it_is_forgotten(self, store: Store) -> None:
        one = group()
        store.ask(one.append("s", 1, Turn(b"h", 0, 0, False, [])))
        for call in one.forget(["s", "t"]):
            assert call.is_history
            store.ask(call)
        assert store.ask(one.history("s")) == (0, [])


class TestResets:
    def test_the_version_goes_on(self, store: Store) -> None:
        one = group()
        assert store.ask(one.reset("s", b"reset")) == 0
        live_through(store, one, "j", session="s")
        assert store.ask(one.reset("s", b"reset")) == 2
        assert store.ask(one.pending("s")) == (2, b"reset")
        assert store.ask(one.sizes()).history_bytes == 0
        assert run(store, one, "k", session="s").version == 2

    def test_one_that_was_reset_before_may_be_reset_and_dropped(self, store: Store) -> None:
        one = group()
        live_through(store, one, "j", session="s")
        assert [store.ask(one.reset("s", b"reset")) for _ in range(2)] == [2, 3]
        assert store.ask(one.drop_session("s"))

    def test_a_busy_session_is_not_reset(self, store: Store) -> None:
        one = group()
        admit(store, one, bid("j", session="s"))
        assert store.ask(one.reset("s", b"reset")) is None


class TestTheView:
    def test_workers_see_each_other(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        store.ask(one.beat(b"one", {"m": (1, 2)}))
        store.pass_(3)
        wait(store, one, "j")
        seen = store.ask(two.beat(b"two", {"m": (0, 4), "n": (1, 1)}))
        assert [tuple(member) for member in seen.workers] == [
            ("worker-w1", "w1", b"one", 3.0),
            ("worker-w2", "w2", b"two", 0.0),
        ]
        assert (seen.now_ms, seen.queued, seen.leases) == (store.now_ms, {"p/m": 1}, 0)
        assert seen.models == {"m": (1, 6), "n": (1, 1)}
        store.pass_(28)
        assert [member.worker for member in store.ask(two.beat(b"", {})).workers] == ["worker-w2"]
        store.ask(two.leave())
        assert [member.worker for member in store.ask(one.beat(b"", {})).workers] == ["worker-w1"]

    def test_sizes_say_what_there_is(self, store: Store) -> None:
        one = group()
        store.ask(one.beat(b"", {}))
        end(store, one, run(store, one, "a", session="s"), change=written())
        wait(store, one, "b")
        admit(store, one, bid("c"))
        assert store.ask(one.sizes()) == (1, 100, {"p/m": 2}, 1, {"worker-w1": 1}, 1)

    def test_a_lane_is_dropped(self, store: Store) -> None:
        one = group()
        for number in range(3):
            wait(store, one, f"j{number}", session=f"s{number}", owner="bob")
        assert store.ask(one.drop_lane("p", "m", 2)) == 2
        assert store.ask(one.drop_lane("p", "m")) == 1
        assert store.names() == {"turns", "bell:m", "confirmed:w1"}
