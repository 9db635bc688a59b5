"""A request's way through the store that workers share: admitted, confirmed, taken, committed, settled, or not."""

from __future__ import annotations

from typing import Any

from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.redis.bids import Charging
from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.group import RedisGroup
from inferbus_worker.state.redis.holdings import Became, Cancelled, Committed, Confirmed, Reaped, Renewed, Taken
from inferbus_worker.state.redis.verdicts import (
    Admitted,
    Busy,
    Granted,
    Known,
    Limited,
    NeverFits,
    NoRoom,
    OverBudget,
    Repeat,
    Stale,
    Tombstoned,
    TooLate,
    TooManyForms,
)
from support.redis_calls import Store, admit, bid, end, group, live_through, run, wait, written


class TestAWholeLife:
    def test_nothing_is_left_of_a_job_that_has_been_settled(self, store: Store) -> None:
        one = group()
        taken = run(store, one, "j", owner="bob", deadline=30, slot_by=20, form_limit=2)
        assert taken == Taken(
            *("j", "t", 0, b"body of j", None, 0, 0.0, 30.0, None, False), is_cancelled=False, model="m"
        )
        assert end(store, one, taken) == Committed(())
        store.ask(one.settle([("j", "t", True)]))
        assert store.names() == {"turns", "bell:m", "confirmed:w1"}

    def test_a_session_stays_with_what_the_turn_wrote(self, store: Store) -> None:
        one = group()
        taken = run(store, one, "j", session="s")
        assert (taken.session, taken.version) == ("s", 0)
        assert end(store, one, taken, change=written(pending=b"turn")) == Committed((), Became.RECORDED)
        assert store.ask(one.pending("s")) == (1, b"turn")
        store.ask(one.settle([("j", "t", True)]))
        assert store.ask(one.pending("s")) == (1, None)
        assert run(store, one, "k", "u", session="s").version == 1

    def test_its_change_stays_pending_until_the_history_has_it(self, store: Store) -> None:
        one = group()
        taken = run(store, one, "j", session="s")
        end(store, one, taken, change=written(pending=b"turn"))
        store.ask(one.settle([("j", "t", False)]))
        assert store.ask(one.pending("s")) == (1, b"turn")

    def test_a_turn_that_changes_nothing_frees_its_session_all_the_same(self, store: Store) -> None:
        one = group()
        end(store, one, run(store, one, "j", session="s"))
        store.ask(one.settle([("j", "t", False)]))
        assert admit(store, one, bid("k", session="s")) == Admitted(0)

    def test_nobody_takes_what_is_not_confirmed(self, store: Store) -> None:
        one = group()
        assert admit(store, one, bid("j")) == Admitted(0)
        assert store.ask(one.take("t", [("m", 1)])).jobs == []
        assert admit(store, one, bid("k")) == Admitted(1)
        store.ask(one.confirm(["j"]))
        assert [taken.job for taken in store.ask(group("w2").take("t", [("m", 2)])).jobs] == ["j"]

    def test_withdrawn_it_was_never_there(self, store: Store) -> None:
        one = group()
        admit(store, one, bid("j", session="s", retry="r", owner="bob", form_limit=1, deadline=30))
        store.ask(one.withdraw(["j", "another"]))
        assert store.names() == {"turns"}

    def test_what_is_confirmed_is_not_withdrawn(self, store: Store) -> None:
        one = group()
        wait(store, one, "j")
        store.ask(one.withdraw(["j"]))
        assert len(store.ask(one.take("t", [("m", 1)])).jobs) == 1


class TestTheVerdict:
    def test_the_same_job_again_hears_the_same(self, store: Store) -> None:
        one = group()
        admit(store, one, bid("i"))
        for _ in range(2):
            assert admit(store, one, bid("j", session="s", retry="r", windows=(("w", 1, 60),))) == Admitted(1)
        assert store.ask(one.sizes()).queued == {"p/m": 2}

    def test_one_that_comes_too_late_does_nothing(self, store: Store) -> None:
        call = group().admit(bid("j"), store.now_ms - 1)
        assert store.ask(call) == Stale()
        assert store.names() == set()

    def test_a_repeat_of_what_is_in_flight_is_left_to_it(self, store: Store) -> None:
        one = group()
        wait(store, one, "j", retry="r")
        assert admit(store, one, bid("k", retry="r")) == Repeat()

    def test_what_nobody_will_confirm_stands_in_nobodys_way(self, store: Store) -> None:
        """Its admitter has heard no answer, and has refused it or is lost: nobody would answer a repeat either."""
        one, other = group(), group("w2")
        admit(store, one, bid("j", retry="r", session="s", form_limit=1))
        assert admit(store, one, bid("k", retry="r", session="s")) == Repeat()
        assert admit(store, other, bid("k", session="s")) == Busy()
        store.pass_(1)
        assert admit(store, other, bid("k", retry="r", session="s", form_limit=1)) == Admitted(0)
        assert store.ask(one.confirm(["j"])).elsewhere == ("j",)
        store.pass_(1)
        assert admit(store, one, bid("l", session="s")) == Admitted(0)
        assert store.ask(other.confirm(["k"])).gone == ("k",)
        assert store.ask(one.confirm(["l"])).gone == ()
        assert [taken.job for taken in store.ask(one.take("t", [("m", 9)])).jobs] == ["l"]

    def test_what_another_worker_has_not_confirmed_is_taken_up(self, store: Store) -> None:
        """Its admitter died, and the broker deals it anew, at once; or he lives, and need not say anything."""
        one, other = group("w1"), group("w2")
        admit(store, one, bid("j", retry="r", session="s", form_limit=1))
        assert admit(store, other, bid("k", retry="r", session="s", form_limit=1)) == Admitted(0)
        assert store.ask(other.confirm(["k"])) == Confirmed()
        confirmation = one.confirm(["j"])
        for _ in range(2):
            assert store.ask(confirmation) == Confirmed(elsewhere=("j",))
        assert admit(store, one, bid("l", retry="r", session="s")) == Repeat()
        assert [taken.job for taken in store.ask(one.take("t", [("m", 9)])).jobs] == ["k"]

    def test_what_is_taken_up_counts_once(self, store: Store) -> None:
        one, other = group("w1"), group("w2")
        windows = (("w", 1, 60),)
        admit(store, one, bid("j", retry="r", windows=windows))
        assert admit(store, other, bid("k", retry="r", windows=windows)) == Admitted(0)

    def test_what_is_taken_up_stays_cancelled(self, store: Store) -> None:
        one, other = group("w1"), group("w2")
        admit(store, one, bid("j", retry="r", session="s", names="n"))
        store.ask(other.cancel("s", "n", "c"))
        assert admit(store, other, bid("k", retry="r", session="s", names="n")) == Tombstoned()
        assert store.ask(one.confirm(["j"])) == Confirmed(elsewhere=("j",))

    def test_what_the_store_has_lost_stands_in_nobodys_way(self, store: Store) -> None:
        """A store that is full may let go of keys, where its policy says so."""
        one = group()
        wait(store, one, "j", retry="r", session="s")
        store.client.delete(f"{one.prefix}job:j")
        assert admit(store, one, bid("k", retry="r", session="s")) == Admitted(1)

    def test_a_repeat_of_what_has_ended_gets_its_outcome_and_counts(self, store: Store) -> None:
        one = group()
        windows = (("w", 2, 60),)
        live_through(store, one, "j", retry="r", windows=windows)
        assert admit(store, one, bid("k", retry="r", windows=windows)) == Known(b"outcome")
        assert admit(store, one, bid("l", retry="r", windows=windows)) == Limited(60)

    def test_what_its_reply_asks_to_retry_is_not_remembered(self, store: Store) -> None:
        one = group()
        end(store, one, run(store, one, "j", retry="r"), outcome=None)
        assert admit(store, one, bid("k", retry="r")) == Admitted(0)

    def test_an_empty_outcome_is_one(self, store: Store) -> None:
        one = group()
        end(store, one, run(store, one, "j", retry="r"), outcome=b"")
        assert admit(store, one, bid("k", retry="r")) == Known(b"")

    def test_what_one_limit_refuses_counts_in_none(self, store: Store) -> None:
        one = group()
        full, free = ("full", 1, 10), ("free", 2, 60)
        admit(store, one, bid("a", windows=(full,)))
        for number in range(5):
            assert admit(store, one, bid(f"b{number}", windows=(free, full))) == Limited(10)
        assert [type(admit(store, one, bid(f"c{n}", windows=(free,)))) for n in range(3)] == [
            Admitted,
            Admitted,
            Limited,
        ]

    def test_a_limit_keeps_no_more_than_it_let_through_at_once(self, store: Store) -> None:
        one = group()
        for number in range(30):
            admit(store, one, bid(f"j{number}", windows=(("w", 1000, 10.0),)))
            store.pass_(3)
        (window,) = store.client.keys("*window:w")
        assert store.client.llen(window) == 4

    def test_a_session_has_one_request_at_a_time(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        admit(store, one, bid("j", session="s"))
        assert admit(store, two, bid("k", session="s", windows=(("w", 1, 60),))) == Busy()
        assert admit(store, two, bid("l", session="s", windows=(("w", 1, 60),))) == Limited(60)

    def test_a_full_queue_has_no_room(self, store: Store) -> None:
        one = group(queue_size=2)
        assert [type(admit(store, one, bid(f"j{n}"))) for n in range(3)] == [Admitted, Admitted, NoRoom]

    def test_it_is_too_late_behind_too_many(self, store: Store) -> None:
        one = group()
        admit(store, one, bid("a"))
        assert admit(store, one, bid("b", most_ahead=0)) == TooLate()
        assert admit(store, one, bid("c", most_ahead=1)) == Admitted(1)

    def test_forms_are_bounded_until_they_end(self, store: Store) -> None:
        one = group()
        taken = run(store, one, "a", form_limit=1)
        assert admit(store, one, bid("b", form_limit=1)) == TooManyForms()
        end(store, one, taken)
        assert admit(store, one, bid("c", form_limit=1)) == Admitted(0)


class TestTheTokenBudget:
    charge = Charging(question=10, system=5, answer=25, history_most=30, limit=100, window=60)

    def test_it_is_charged_with_the_most_that_it_can_take(self, store: Store) -> None:
        one = group()
        assert admit(store, one, bid("a", session="s", charge=self.charge._replace(answer=86))) == NeverFits(15, 86)
        taken = run(store, one, "b", session="s", charge=self.charge)
        store.pass_(10)
        end(store, one, taken, change=written(tokens=1000, system=7))
        assert admit(store, one, bid("c", session="s", charge=self.charge)) == OverBudget(50)

    def test_what_it_took_takes_the_place_of_the_charge(self, store: Store) -> None:
        one = group()
        for number in range(5):
            taken = run(store, one, f"a{number}", session="s", charge=self.charge._replace(answer=80))
            end(store, one, taken, used_tokens=1)
        assert admit(store, one, bid("b", session="s", charge=self.charge._replace(answer=81))) == OverBudget(60)

    def test_what_is_withdrawn_costs_nothing(self, store: Store) -> None:
        one = group()
        for number in range(5):
            admit(store, one, bid(f"a{number}", session="s", charge=self.charge._replace(answer=80)))
            store.ask(one.withdraw([f"a{number}"]))
        assert admit(store, one, bid("b", session="s", charge=self.charge)) == Admitted(0)


class TestTheEnd:
    def test_the_same_commit_again_is_answered_as_before(self, store: Store) -> None:
        one = group()
        taken = run(store, one, "j", session="s", retry="r")
        for _ in range(2):
            assert end(store, one, taken, change=written(), outcome=b"o") == Committed((), Became.RECORDED)
        assert store.ask(one.sizes()).history_bytes == 100

    def test_of_two_owners_one_commits(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        first = run(store, one, "j", session="s", retry="r")
        store.pass_(10)
        assert store.ask(two.reap("r")).requeued == 1
        (second,) = store.ask(two.take("u", [("m", 1)])).jobs
        assert (second.run, second.token) == (1, "u")
        assert end(store, one, first, change=written(), outcome=b"first") is None
        assert end(store, two, second, change=written(), outcome=b"second") == Committed((), Became.RECORDED)
        assert end(store, one, first, change=written(), outcome=b"first") is None
        assert admit(store, one, bid("k", retry="r")) == Known(b"second")

    def test_the_least_recently_used_session_goes_first(self, store: Store) -> None:
        one = group(max_sessions=2)
        for session in ("a", "b", "a"):
            live_through(store, one, f"j{session}{store.now_ms}", session=session)
            store.pass_(1)
        taken = run(store, one, "k", session="c")
        assert end(store, one, taken, change=written()) == Committed(("b",), Became.RECORDED)
        assert "session:b" not in store.names()

    def test_sessions_share_so_many_bytes(self, store: Store) -> None:
        one = group(max_history_bytes=250)
        for session in ("a", "b"):
            live_through(store, one, f"j{session}", session=session)
            store.pass_(1)
        taken = run(store, one, "k", session="c")
        assert end(store, one, taken, change=written()) == Committed(("a",), Became.RECORDED)

    def test_a_session_that_is_claimed_stays(self, store: Store) -> None:
        one = group(max_sessions=1)
        live_through(store, one, "j", session="a")
        taken = run(store, one, "k", session="a", mark="u")
        store.pass_(1)
        other = run(store, one, "l", session="b", mark="v")
        assert end(store, one, other, change=written()) == Committed(("b",), Became.RECORDED)
        assert end(store, one, taken, change=written(2)) == Committed((), Became.RECORDED)

    def test_a_session_that_was_dropped_meanwhile_is_not_written(self, store: Store) -> None:
        one = group()
        taken = run(store, one, "j", session="s")
        assert store.ask(one.drop_session("s"))
        assert end(store, one, taken, change=written()) == Committed((), Became.NOTHING)
        assert store.ask(one.pending("s")) == (0, None)


class TestCancels:
    def test_what_waits_is_taken_out(self, store: Store) -> None:
        one = group()
        wait(store, one, "j", session="s")
        cancelled = store.ask(group("w2").cancel("s", None, "c"))
        assert [(taken.job, taken.token, taken.is_cancelled) for taken in cancelled.mine] == [("j", "c", True)]
        assert store.ask(one.take("t", [("m", 1)])).jobs == []

    def test_what_runs_is_marked_and_its_worker_hears_of_it(self, store: Store) -> None:
        one = group()
        taken = run(store, one, "j", session="s")
        assert store.ask(group("w2").cancel("s", "j", "c")) == ([], ("j",))
        assert store.ask(one.renew([("j", "t")])) == Renewed((), ("j",))
        assert end(store, one, taken) == Committed(())

    def test_what_is_not_confirmed_yet_is_ended_as_soon_as_it_is(self, store: Store) -> None:
        one = group()
        admit(store, one, bid("j", session="s"))
        assert store.ask(one.cancel("s", None, "c")).running == ("j",)
        store.ask(one.confirm(["j"]))
        assert [taken.is_cancelled for taken in store.ask(one.overdue("o"))] == [True]

    def test_it_looks_at_no_other_of_its_session(self, store: Store) -> None:
        """A session may have thousands under way, all without a conversation, and cancels cost their sender nothing."""
        one = group()
        for number in range(50):
            wait(store, one, f"j{number}", names=f"n{number}/")
        wait(store, one, "named", names="n7")

        def commands() -> int:
            stats: Any = store.client.info("commandstats")
            return sum(row["calls"] for row in stats.values())

        before = commands()
        assert store.ask(one.cancel("s", "n", "c")) == ([], ())
        assert commands() - before < 10
        assert [taken.job for taken in store.ask(one.cancel("s", "n7", "c")).mine] == ["named"]
        assert [taken.job for taken in store.ask(one.cancel("s", "n7/", "c")).mine] == ["j7"]
        assert len(store.ask(one.cancel("s", None, "c")).mine) == 49
        before = commands()
        assert len(store.ask(one.cancel("s", None, "c")).running) == 51
        assert commands() - before < 60

    def test_one_that_finds_nothing_is_remembered_for_its_request(self, store: Store) -> None:
        one = group()
        wait(store, one, "other", session="s")
        assert store.ask(one.cancel("s", "j", "c")) == ([], ())
        assert admit(store, one, bid("j", flying="s")) == Tombstoned()
        assert admit(store, one, bid("k", flying="s")) == Admitted(1)
        assert 0 < int(store.client.pttl(one.prefix + "tomb:1:s/j")) <= 3000


class TestGranted:
    """Whoever has a slot free, and nobody before it, gets what he admits."""

    def test_what_is_granted_runs_when_it_is_confirmed(self, store: Store) -> None:
        one = group()
        live_through(store, one, "i", session="s")
        (version,) = grant(store, one, "j", session="s")
        assert version == 1
        assert store.ask(one.renew([("j", "g")])) == Renewed((), ())
        assert store.ask(one.confirm(["j"])) == Confirmed()
        assert store.ask(one.take("t", [("m", 9)])).jobs == []
        assert end(store, one, hold("j"), change=written(2)) is not None
        store.ask(one.settle([("j", "g", True)]))
        assert admit(store, one, bid("k", session="s")) == Admitted(0)

    def test_its_end_may_come_before_its_confirmation(self, store: Store) -> None:
        """A store that takes no writes for a moment is told again, and in another order."""
        one, other = group("w1"), group("w2")
        grant(store, one, "j", session="s")
        confirmation = one.confirm(["j"])
        assert end(store, one, hold("j")) == Committed(())
        assert store.ask(confirmation) == Confirmed()
        store.ask(one.settle([("j", "g", True)]))
        assert store.ask(confirmation) == Confirmed()
        assert store.ask(one.confirm(["j"])) == Confirmed()
        store.pass_(11)
        assert store.ask(other.reap("r")) == Reaped(0, 0, [])
        assert admit(store, one, bid("k", session="s")) == Admitted(0)

    def test_its_answer_was_lost_and_it_comes_again(self, store: Store) -> None:
        one = group()
        first, again = (grant(store, one, "j") for _ in range(2))
        assert first == again

    def test_not_before_what_waits(self, store: Store) -> None:
        one = group()
        wait(store, one, "i")
        assert store.ask(one.admit(bid("j"), store.now_ms, "g")) == Admitted(1)

    def test_not_before_what_waits_of_another_project(self, store: Store) -> None:
        one = group(projects={"p": ProjectSettings(), "q": ProjectSettings()})
        wait(store, one, "i", project="q")
        assert store.ask(one.admit(bid("j"), store.now_ms, "g")) == Admitted(1)

    def test_not_to_another_worker_than_the_one_with_its_prefix(self, store: Store) -> None:
        one, other = group("w1"), group("w2")
        for each in (one, other):
            store.ask(each.beat(b"", {"m": (0, 1)}))
        live_through(store, one, "i", session="s")
        assert store.ask(other.admit(bid("j", session="s"), store.now_ms, "g")) == Admitted(0)
        store.ask(other.withdraw(["j"]))
        assert store.ask(one.admit(bid("k", session="s"), store.now_ms, "g")) == Granted(1)

    def test_it_takes_nobodys_room_and_has_had_its_turn(self, store: Store) -> None:
        one = group(projects={"p": ProjectSettings(), "q": ProjectSettings()}, queue_size=2)
        for number in range(3):
            grant(store, one, f"p{number}", owner="a")
        store.ask(one.confirm(["p0", "p1", "p2"]))
        wait(store, one, "p3", owner="a")
        wait(store, one, "q", project="q")
        taken = store.ask(one.take("t", [("m", 2)])).jobs
        assert [each.job for each in taken] == ["q", "p3"], "the other lane has had its turns"

    def test_withdrawn_it_was_never_there(self, store: Store) -> None:
        one = group()
        grant(store, one, "j", session="s", retry="r", owner="bob", form_limit=1, deadline=30)
        store.ask(one.withdraw(["j"]))
        assert store.names() == {"turns"}

    def test_nobody_runs_it_when_its_admitter_is_lost(self, store: Store) -> None:
        one, other = group("w1"), group("w2")
        grant(store, one, "j", session="s")
        store.pass_(11)
        assert store.ask(other.reap("r")) == Reaped(0, 1, [])
        assert store.ask(one.confirm(["j"])).gone == ("j",)
        assert end(store, one, hold("j")) is None

    def test_cancelled_before_it_is_confirmed(self, store: Store) -> None:
        one, other = group("w1"), group("w2")
        grant(store, one, "j", session="s")
        assert store.ask(other.cancel("s", "j", "x")) == Cancelled([], ("j",))
        assert store.ask(one.confirm(["j"])) == Confirmed(cancelled=("j",))
        assert end(store, one, hold("j")) is not None


def grant(store: Store, one: RedisGroup, job: str, **fields: Any) -> Granted:
    verdict = store.ask(one.admit(bid(job, **fields), store.now_ms, "g"))
    assert isinstance(verdict, Granted)
    return verdict


def hold(job: str) -> Taken:
    return Taken(job, "g", 0, b"", None, 0, 0.0, None, None, is_poison=False)


class TestForgotten:
    """What the store knows nothing of is not always what it has forgotten."""

    def test_not_what_another_worker_has_answered(self, store: Store) -> None:
        """Somebody took its lease from the first one, by hand or by a clock that leaps."""
        one, other = group("w1"), group("w2")
        taken = run(store, one, "j")
        store.ask(one.give_back([("j", "t")]))
        (again,) = store.ask(other.take("u", [("m", 1)])).jobs
        assert end(store, other, again) is not None
        store.ask(other.settle([("j", "u", True)]))
        assert store.ask(one.renew([("j", "t")])) == Renewed(("j",), ())
        assert end(store, one, taken) is None
        assert not store.ask(one.adopt("j", "t"))

    def test_nor_what_somebody_has_dropped(self, store: Store) -> None:
        one = group("w1")
        taken = run(store, one, "j")
        store.ask(one.give_back([("j", "t")]))
        store.ask(one.drop_lane("p", "m"))
        assert end(store, one, taken) is None

    def forgotten(self, store: Store) -> tuple[RedisGroup, Call[Confirmed], Taken]:
        """A job that one has admitted and confirmed, and another one holds; the store knows nothing of it any more."""
        one, other = group("w1"), group("w2")
        admit(store, one, bid("j"))
        confirmation = one.confirm(["j"])
        store.ask(confirmation)
        (taken,) = store.ask(other.take("t", [("m", 1)])).jobs
        store.clear()
        return other, confirmation, taken

    def test_its_admitter_hears_late_that_it_is_answered(self, store: Store) -> None:
        other, confirmation, taken = self.forgotten(store)
        assert end(store, other, taken) == Committed((), Became.UNKNOWN)
        for _ in range(2):
            assert store.ask(other.adopt("j", "t"))
        assert store.ask(confirmation) == Confirmed(elsewhere=("j",))

    def test_or_has_said_that_it_is_dropped(self, store: Store) -> None:
        other, confirmation, taken = self.forgotten(store)
        assert store.ask(confirmation) == Confirmed(gone=("j",))
        assert end(store, other, taken) is None
        assert not store.ask(other.adopt("j", "t"))

    def test_that_it_was_confirmed_and_so_it_goes(self, store: Store) -> None:
        one, other = group("w1"), group("w2")
        admit(store, one, bid("j", session="s"))
        assert store.ask(other.adopt("j", "t"))
        assert store.ask(one.confirm(["j"])) == Confirmed(elsewhere=("j",))
        assert admit(store, one, bid("k", session="s")) == Admitted(0)
