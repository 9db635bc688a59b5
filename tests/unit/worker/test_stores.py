"""What any store of conversations, windows, budgets and outcomes promises (`state.protocols`), wherever it has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_worker.outcome import Answered
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.conversation import Change, remembered
from inferbus_worker.state.keys import RetryKey, SessionKey
from inferbus_worker.state.protocols import Budgets, Charge, Claim, Finished, Stores, Window
from support.rooms import FakeClock
from support.stores import KINDS

KEY = SessionKey("general", "s1")
BUDGET = {"token_budget": "100/60s"}
RETRY = RetryKey("general", "s1", "c1", "r1")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, clock: FakeClock) -> Callable[..., Stores]:
    def made(**settings: Any) -> Stores:
        return KINDS[request.param](Settings.model_validate(settings), clock)

    return made


@pytest.fixture
def stores(make: Callable[..., Stores]) -> Stores:
    return make(**BUDGET, max_history_tokens=0, max_tokens=10)


def claimed(stores: Stores, key: SessionKey = KEY) -> Claim:
    claim = stores.sessions.claim(key)
    assert claim is not None
    return claim


def turn(question: str, tokens: int = 10) -> Change:
    asked = remembered({"role": "user", "content": question}, tokens)
    return Change((asked, remembered({"role": "assistant", "content": "a"}, tokens)))


def words(claim: Claim) -> list[str]:
    return [one.message["content"] for one in claim.conversation.messages]


class TestClaims:
    def test_a_session_belongs_to_one_at_a_time(self, stores: Stores) -> None:
        claim = claimed(stores)
        assert stores.sessions.claim(KEY) is None
        claim.release()
        assert claimed(stores).conversation == claim.conversation

    @pytest.mark.parametrize(
        "other", [SessionKey("general", "s2"), SessionKey("other", "s1"), SessionKey("general", "s1", "ann")]
    )
    def test_another_session_project_or_user_is_another_claim(self, stores: Stores, other: SessionKey) -> None:
        first, second = claimed(stores), claimed(stores, other)
        assert first.commit(turn("mine"))
        first.release()
        second.release()
        assert words(claimed(stores, other)) == []

    def test_what_is_committed_is_there_for_the_next_one(self, stores: Stores) -> None:
        claim = claimed(stores)
        assert claim.commit(turn("one"))
        assert claim.commit(turn("two"))
        claim.release()
        assert words(claimed(stores)) == ["one", "a", "two", "a"]

    def test_the_holder_sees_the_conversation_as_it_was(self, stores: Stores) -> None:
        claim = claimed(stores)
        assert claim.commit(turn("one"))
        assert words(claim) == []

    def test_what_is_not_committed_leaves_nothing(self, stores: Stores) -> None:
        claimed(stores).release()
        assert words(claimed(stores)) == []
        assert len(stores.sessions) == 1  # the claimed one

    def test_a_commit_after_the_release_comes_too_late(self, stores: Stores) -> None:
        late = claimed(stores)
        late.release()
        assert not late.commit(turn("late"))
        assert words(claimed(stores)) == []

    def test_a_commit_comes_too_late_where_somebody_else_has_the_session(self, stores: Stores) -> None:
        late = claimed(stores)
        late.release()
        holder = claimed(stores)
        assert not late.commit(turn("late"))
        assert holder.commit(turn("in time"))
        late.release()
        assert stores.sessions.claim(KEY) is None  # a second release frees nobody else's
        holder.release()
        assert words(claimed(stores)) == ["in time", "a"]

    def test_fences_grow(self, stores: Stores) -> None:
        fences = []
        for _ in range(5):
            claim = claimed(stores)
            fences.append(claim.fence)
            claim.release()
        assert fences == sorted(set(fences))

    def test_a_change_is_made_as_a_whole(self, stores: Stores) -> None:
        claim = claimed(stores)
        assert claim.commit(turn("one"))
        assert claim.commit(turn("two")._replace(forgotten=2, system_prompt="Be brief."))
        claim.release()
        claim = claimed(stores)
        assert (words(claim), claim.conversation.tokens) == (["two", "a"], 20)
        assert claim.conversation.system_prompt == "Be brief."
        assert claim.commit(Change(resets=True))
        claim.release()
        assert claimed(stores).conversation.is_empty

    def test_of_many_threads_one_gets_it(self, stores: Stores) -> None:
        start, won = threading.Barrier(8), list[Claim]()

        def grab() -> None:
            start.wait()
            claim = stores.sessions.claim(KEY)
            if claim is not None:
                won.append(claim)

        threads = [threading.Thread(target=grab) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1


class TestWindows:
    TWO = RateLimit(2, 60)

    def test_a_window_lets_so_many_through_and_then_says_how_long_to_wait(
        self, stores: Stores, clock: FakeClock
    ) -> None:
        window = Window("t", "k", self.TWO)
        assert stores.windows.admit([window]) is None
        clock.pass_(20)
        assert stores.windows.admit([window]) is None
        assert stores.windows.admit([window]) == 40
        clock.pass_(40)
        assert stores.windows.admit([window]) is None

    def test_one_that_is_full_counts_in_none(self, stores: Stores) -> None:
        full, empty = Window("a", "k", RateLimit(1, 60)), Window("b", "k", self.TWO)
        assert stores.windows.admit([full, empty]) is None
        assert stores.windows.admit([full, empty]) == 60
        assert stores.windows.admit([empty]) is None
        assert stores.windows.admit([empty]) == 60

    def test_keys_and_tables_have_nothing_in_common(self, stores: Stores) -> None:
        one = RateLimit(1, 60)
        asked = [Window("a", "k", one), Window("a", "l", one), Window("b", "k", one)]
        assert [stores.windows.admit([window]) for window in asked] == [None] * 3

    def test_no_window_is_no_limit(self, stores: Stores) -> None:
        assert [stores.windows.admit([]) for _ in range(100)] == [None] * 100


class TestBudgets:
    def budgets(self, stores: Stores) -> Budgets:
        assert stores.budgets is not None
        return stores.budgets

    def charge(self, stores: Stores, tokens: int, key: SessionKey = KEY) -> Charge:
        charge = self.budgets(stores).charge(key, tokens)
        assert not isinstance(charge, int | float)
        return charge

    def test_what_does_not_fit_hears_when_it_may_come_again(self, stores: Stores, clock: FakeClock) -> None:
        self.charge(stores, 60)
        clock.pass_(10)
        self.charge(stores, 40)
        assert self.budgets(stores).charge(KEY, 1) == 50
        assert self.budgets(stores).charge(KEY, 61) == 60
        clock.pass_(50)
        self.charge(stores, 60)

    def test_what_was_really_taken_stands_in_the_place_of_the_charge(self, stores: Stores) -> None:
        self.charge(stores, 100).settle(30)
        self.charge(stores, 70).settle(0)
        self.charge(stores, 70)

    def test_sessions_have_each_their_own(self, stores: Stores) -> None:
        self.charge(stores, 100)
        self.charge(stores, 100, SessionKey("general", "s2"))

    def test_there_are_none_where_no_budget_is_set(self, make: Callable[..., Stores]) -> None:
        assert make().budgets is None


class TestIdempotency:
    DONE = Finished("s1", Answered("hello"))

    def test_a_request_runs_once_and_is_known_then(self, stores: Stores) -> None:
        recent = stores.recent
        assert recent.known(RETRY) is None
        assert recent.started(RETRY)
        assert recent.known(RETRY) == "in flight"
        assert not recent.started(RETRY)
        recent.finished(RETRY, self.DONE)
        assert recent.known(RETRY) == self.DONE

    def test_a_failure_that_may_be_retried_is_not_remembered(self, stores: Stores) -> None:
        assert stores.recent.started(RETRY)
        stores.recent.finished(RETRY, Finished("s1", Failure("overloaded")))
        assert stores.recent.known(RETRY) is None
        assert stores.recent.started(RETRY)

    def test_it_is_forgotten_with_time(self, make: Callable[..., Stores], clock: FakeClock) -> None:
        recent = make(retry_memory="60s").recent
        assert recent.started(RETRY)
        recent.finished(RETRY, self.DONE)
        clock.pass_(59)
        assert recent.known(RETRY) == self.DONE
        clock.pass_(2)
        assert recent.known(RETRY) is None


def test_each_says_how_full_it_is(stores: Stores) -> None:
    claim = claimed(stores)
    assert claim.commit(turn("hello"))
    claim.release()
    assert stores.recent.started(RETRY)
    stores.recent.finished(RETRY, TestIdempotency.DONE)
    levels = stores.levels()
    assert set(levels) == {"sessions", "historyBytes", "retryMemoryBytes"}
    assert all(0 < now <= bound for now, bound in levels.values())
