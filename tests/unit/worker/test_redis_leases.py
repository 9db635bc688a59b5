"""Who holds a job that workers share, and what becomes of it when he is lost: leases, bells, preference, poison."""

from __future__ import annotations

from inferbus_worker.state.redis.holdings import Committed, Reaped, Renewed
from inferbus_worker.state.redis.verdicts import Admitted
from support.redis_calls import Store, admit, bid, end, group, live_through, run, wait, written

_WANTED = [("m", 1)]


def bells(store: Store) -> set[str]:
    """Those that would ring; they are silent again afterwards."""
    rung = {name for name in store.names() if name.startswith("bell:")}
    for name in rung:
        assert store.client.llen(group().prefix + name) == 1
        assert 0 < int(store.client.pttl(group().prefix + name)) <= 60_000
        store.client.delete(group().prefix + name)
    return {name.removeprefix("bell:") for name in rung}


class TestLeases:
    def test_what_is_renewed_is_kept(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        taken = run(store, one, "j")
        for _ in range(5):
            store.pass_(9)
            assert store.ask(one.renew([("j", "t")])) == Renewed((), ())
            assert store.ask(two.reap("r")) == Reaped(0, 0, [])
        assert end(store, one, taken) == Committed(())

    def test_what_is_not_renewed_goes_to_the_head_of_its_lane(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        run(store, one, "a")
        wait(store, one, "b")
        store.pass_(10)
        assert store.ask(two.reap("r")).requeued == 1
        (taken,) = store.ask(two.take("u", _WANTED)).jobs
        assert (taken.job, taken.run, taken.waited) == ("a", 1, 10)
        assert store.ask(one.renew([("a", "t")])) == Renewed(("a",), ())

    def test_what_a_stalled_store_comes_to_too_late_takes_nothing_from_anybody(self, store: Store) -> None:
        """It goes on with what was asked before; those that live have not been able to renew meanwhile."""
        one, two = group("w1"), group("w2")
        run(store, one, "a")
        wait(store, one, "b")
        patience = store.now_ms + 700
        store.pass_(11)
        assert store.ask(two.reap("r", not_after=patience)) == Reaped(0, 0, [])
        assert store.ask(two.take("u", _WANTED, patience)).jobs == []
        assert store.ask(one.renew([], patience)) == Renewed((), ())
        assert store.ask(one.renew([("a", "t")])) == Renewed((), ())
        assert store.ask(two.reap("r")) == Reaped(0, 0, [])

    def test_a_confirmation_that_comes_again_says_the_same_though_all_is_over(self, store: Store) -> None:
        """Its answer was lost; its jobs have been run and answered meanwhile by others."""
        one = group("w1")
        admit(store, one, bid("a"))
        confirm = one.confirm(["a", "never"])
        assert store.ask(confirm).gone == ("never",)
        (taken,) = store.ask(one.take("t", _WANTED)).jobs
        end(store, one, taken)
        store.ask(one.settle([("a", "t", True)]))
        assert store.ask(confirm).gone == ("never",)
        assert store.ask(one.confirm(["a"])).gone == ("a",)

    def test_what_is_given_back_was_not_lost(self, store: Store) -> None:
        one = group(max_attempts=1)
        for number in range(3):
            (taken,) = [run(store, one, "j")] if not number else store.ask(one.take("t", _WANTED)).jobs
            assert (taken.run, taken.is_poison) == (number, False)
            store.ask(one.give_back([("j", "t")]))

    def test_one_that_nobody_survives_is_ended_by_who_finds_it(self, store: Store) -> None:
        one, two = group("w1", max_attempts=2), group("w2", max_attempts=2)
        run(store, one, "j", session="s")
        store.pass_(10)
        store.ask(two.reap("r1"))
        store.ask(one.take("t2", _WANTED))
        store.pass_(10)
        (taken,) = store.ask(two.reap("r2")).mine
        assert (taken.is_poison, taken.run, taken.token) == (True, 2, "r2")
        assert end(store, two, taken) == Committed(())
        assert admit(store, one, bid("k", session="s")) == Admitted(0)

    def test_who_takes_over_an_owed_reply_gets_its_bytes(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        end(store, one, run(store, one, "j", session="s"), change=written(pending=b"turn"))
        store.pass_(10)
        (taken,) = store.ask(two.reap("r")).mine
        assert (taken.owed, taken.run, taken.is_poison, taken.session) == (b"reply", 0, False, "s")
        store.ask(one.settle([("j", "t", True)]))
        assert store.ask(one.sizes()).leases == 1
        store.ask(two.settle([("j", "r", True)]))
        assert store.ask(one.sizes()).leases == 0
        assert store.ask(one.pending("s")) == (1, None)

    def test_a_job_that_was_taken_and_never_heard_of_goes_back(self, store: Store) -> None:
        one = group()
        run(store, one, "j")
        store.pass_(1)
        assert store.ask(one.renew([])) == Renewed((), ())
        assert store.ask(one.take("u", _WANTED)).jobs == []
        store.pass_(1.5)
        store.ask(one.renew([]))
        assert [taken.job for taken in store.ask(one.take("u", _WANTED)).jobs] == ["j"]

    def test_an_owed_reply_that_is_given_back_is_for_the_next_who_reaps(self, store: Store) -> None:
        one = group()
        end(store, one, run(store, one, "j"))
        store.ask(one.give_back([("j", "t")]))
        assert [taken.owed for taken in store.ask(group("w2").reap("r")).mine] == [b"reply"]

    def test_what_nobody_confirms_is_dropped(self, store: Store) -> None:
        one = group()
        admit(store, one, bid("j", session="s", retry="r", form_limit=1))
        store.pass_(9)
        assert store.ask(one.reap("r")).dropped == 0
        store.pass_(1)
        assert store.ask(one.reap("r")).dropped == 1
        assert store.names() == set()
        assert store.ask(one.confirm(["j"])).gone == ("j",)
        assert store.ask(one.take("t", _WANTED)).jobs == []

    def test_a_confirmation_that_is_sent_again_is_answered_as_before(self, store: Store) -> None:
        """Its first answer was lost on the way; whoever took the job has answered it meanwhile."""
        one, other = group(), group("w2")
        for job in ("j", "k", "l"):
            admit(store, one, bid(job))
        store.ask(one.withdraw(["l"]))
        confirmation = one.confirm(["j", "k", "l"])
        assert store.ask(confirmation).gone == ("l",)
        (taken,) = store.ask(other.take("t", [("m", 1)])).jobs
        end(store, other, taken)
        store.ask(other.settle([(taken.job, taken.token, True)]))
        store.pass_(9)
        assert store.ask(confirmation).gone == ("l",)
        assert store.ask(one.confirm([])).gone == ()

    def test_sessions_that_nobody_comes_back_to_go(self, store: Store) -> None:
        one = group()
        live_through(store, one, "j", session="a")
        store.pass_(1800)
        live_through(store, one, "k", session="b")
        store.pass_(1800)
        assert store.ask(one.reap("r")).evicted == ("a",)
        assert store.ask(one.sizes()).history_bytes == 100

    def test_an_operator_takes_a_workers_leases(self, store: Store) -> None:
        one = group("w1")
        store.ask(one.beat(b"", {}))
        taken = run(store, one, "j")
        assert store.ask(one.drop_leases("worker-w1")) == 1
        assert end(store, one, taken) is None
        assert store.ask(group("w2").reap("r")).requeued == 1

    def test_a_worker_inherits_of_its_own_earlier_life_and_not_of_a_rival(self, store: Store) -> None:
        before, now = group("w1"), group("w1-again", worker="worker-w1")
        store.ask(before.beat(b"", {}))
        store.ask(now.beat(b"", {}))
        taken = run(store, before, "j")
        store.pass_(1.9)
        assert store.ask(now.inherit()) == 0
        store.pass_(0.1)
        assert store.ask(now.inherit()) == 1
        assert end(store, before, taken) is None


class TestLooks:
    def test_what_waits_past_its_deadline_is_taken_out(self, store: Store) -> None:
        one = group()
        wait(store, one, "a", deadline=5)
        wait(store, one, "b", deadline=50, slot_by=6)
        wait(store, one, "c")
        assert store.ask(one.overdue("o")) == []
        store.pass_(7)
        late, slotless = store.ask(one.overdue("o"))
        assert (late.job, late.deadline, slotless.job, slotless.deadline) == ("a", -2, "b", 43)
        assert store.ask(one.put_back("b", "o", "m", 2.0))
        assert not store.ask(one.put_back("b", "o", "m", 2.0))
        assert [taken.job for taken in store.ask(one.take("t", [("m", 3)])).jobs] == ["b", "c"]

    def test_it_may_wait_on_for_another_model(self, store: Store) -> None:
        one = group(models=("m", "n"))
        wait(store, one, "a", slot_by=1, form_limit=1)
        store.pass_(1)
        store.ask(one.overdue("o"))
        bells(store)
        assert store.ask(one.put_back("a", "o", "n", None))
        assert bells(store) == {"n"}
        assert isinstance(admit(store, one, bid("b", form_limit=1)), Admitted)
        assert store.ask(one.take("t", [("m", 1)])).jobs == []
        assert [(taken.job, taken.model) for taken in store.ask(one.take("t", [("n", 1)])).jobs] == [("a", "n")]


class TestBells:
    def test_one_rings_for_what_can_be_taken_and_again_for_what_is_left(self, store: Store) -> None:
        one = group()
        admit(store, one, bid("a"))
        assert bells(store) == set()
        wait(store, one, "b")
        store.ask(one.confirm(["a"]))
        assert bells(store) == {"m"}
        store.ask(one.take("t", _WANTED))
        assert bells(store) == {"m"}
        store.ask(one.take("u", _WANTED))
        assert bells(store) == set()
        store.ask(one.give_back([("b", "u")]))
        assert bells(store) == {"m"}

    def test_it_rings_once_however_many_wait(self, store: Store) -> None:
        for number in range(5):
            wait(store, group(), f"j{number}")
        assert bells(store) == {"m"}


class TestPreference:
    def test_a_sessions_next_turn_waits_a_moment_for_who_has_its_cache(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        store.ask(one.beat(b"", {"m": (0, 1)}))
        live_through(store, one, "a", session="s")
        bells(store)
        wait(store, two, "b", session="s")
        wait(store, two, "c", session="other")
        assert bells(store) == {"worker:w1", "m"}
        store.pass_(0.02)
        took = store.ask(two.take("t", _WANTED))
        assert ([taken.job for taken in took.jobs], took.again_in) == (["c"], 0.03)
        assert bells(store) == {"m"}  # whoever has a slot when it is for everybody may be another one
        store.pass_(0.03)
        assert [taken.job for taken in store.ask(two.take("u", _WANTED)).jobs] == ["b"]

    def test_who_does_not_serve_its_model_is_not_waited_for(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        store.ask(one.beat(b"", {"another m": (0, 1)}))
        live_through(store, one, "a", session="s")
        wait(store, two, "b", session="s")
        assert len(store.ask(two.take("t", _WANTED)).jobs) == 1

    def test_it_takes_it_at_once(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        store.ask(one.beat(b"", {"m": (0, 1)}))
        live_through(store, one, "a", session="s")
        wait(store, two, "b", session="s")
        assert len(store.ask(one.take("t", _WANTED)).jobs) == 1

    def test_nobody_waits_for_a_worker_that_is_gone(self, store: Store) -> None:
        one, two = group("w1"), group("w2")
        store.ask(one.beat(b"", {"m": (0, 1)}))
        live_through(store, one, "a", session="s")
        store.ask(one.leave())
        wait(store, two, "b", session="s")
        assert len(store.ask(two.take("t", _WANTED)).jobs) == 1
