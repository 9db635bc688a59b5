"""Claims and conversations: one holder at a time, claimed sessions are never evicted, history goes in large steps."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_worker.state.conversation import Change, Conversation, remembered
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.memory.sessions import MemorySessions
from inferbus_worker.state.protocols import Claim
from support.rooms import FakeClock


def key(session: str, project: str = "general") -> SessionKey:
    return SessionKey(project, session)


def said(question: Any = "q", answer: str = "a", tokens: int = 10) -> Change:
    """A turn; all of its tokens are the question's."""
    asked = remembered({"role": "user", "content": question}, tokens)
    return Change((asked, remembered({"role": "assistant", "content": answer}, 0)))


def level(store: MemorySessions, name: str) -> int:
    return store.levels()[name][0]


def claimed(store: MemorySessions, session: str, project: str = "general") -> Claim:
    claim = store.claim(key(session, project))
    assert claim is not None
    return claim


def remember(store: MemorySessions, session: str) -> None:
    """Put one exchange into a session, as a finished turn does."""
    claim = claimed(store, session)
    assert claim.commit(said(session))
    claim.release()


def is_known(store: MemorySessions, session: str) -> bool:
    claim = claimed(store, session)
    known = bool(claim.conversation.messages)
    claim.release()
    return known


class TestClaims:
    def test_only_one_at_a_time(self) -> None:
        store = MemorySessions(10, 60)
        claim = claimed(store, "s")
        assert store.claim(key("s")) is None
        claim.release()
        assert store.claim(key("s")) is not None

    def test_the_same_id_in_another_project_is_another_session(self) -> None:
        store = MemorySessions(10, 60)
        first, second = claimed(store, "s", "a"), claimed(store, "s", "b")
        assert first.conversation is not second.conversation

    def test_releasing_twice_does_not_take_the_next_holder_s_claim(self) -> None:
        store = MemorySessions(10, 60)
        first = claimed(store, "s")
        first.release()
        claimed(store, "s")
        first.release()
        assert store.claim(key("s")) is None

    def test_another_thread_may_release(self) -> None:
        store = MemorySessions(10, 60)
        thread = threading.Thread(target=claimed(store, "s").release)
        thread.start()
        thread.join()
        assert store.claimed == 0

    def test_of_many_threads_one_gets_it(self) -> None:
        store = MemorySessions(10, 60)
        start = threading.Barrier(16)
        won: list[Claim] = []

        def grab() -> None:
            start.wait()
            claim = store.claim(key("s"))
            if claim is not None:
                won.append(claim)

        threads = [threading.Thread(target=grab) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1

    def test_an_empty_session_is_not_kept(self) -> None:
        store = MemorySessions(10, 60)
        claimed(store, "s").release()
        assert len(store) == 0


class TestForgetting:
    def test_the_least_recently_used_goes_first(self) -> None:
        store = MemorySessions(2, 60)
        remember(store, "a")
        remember(store, "b")
        assert is_known(store, "a")  # used again: now b is the older one
        remember(store, "c")
        assert not is_known(store, "b")
        assert is_known(store, "a")
        assert is_known(store, "c")

    def test_never_one_that_is_claimed(self) -> None:
        store = MemorySessions(2, 60)
        remember(store, "held")
        claim = claimed(store, "held")
        for number in range(20):
            remember(store, f"s{number}")
        claim.release()
        assert is_known(store, "held")
        assert len(store) == 2

    def test_idle_ones_age(self) -> None:
        clock = FakeClock()
        store = MemorySessions(10, 60, clock=clock)
        remember(store, "s")
        clock.pass_(59)
        assert is_known(store, "s")  # and used: it is young again
        clock.pass_(59)
        assert is_known(store, "s")
        clock.pass_(61)
        assert not is_known(store, "s")

    def test_a_claimed_one_does_not_age(self) -> None:
        clock = FakeClock()
        store = MemorySessions(10, 60, clock=clock)
        remember(store, "s")
        claim = claimed(store, "s")
        clock.pass_(1000)
        claim.release()
        assert is_known(store, "s")

    def test_counting_waits_for_its_turn(self) -> None:
        """To count, the cache drops what is too old: two threads in it at once would leave it broken."""
        store = MemorySessions(10, 60)
        remember(store, "s")
        counted: list[int] = []
        counter = threading.Thread(target=lambda: counted.append(len(store)))
        with store._lock:
            counter.start()
            counter.join(0.2)
            assert counted == []
        counter.join(60)
        assert counted == [1]


class TestBytes:
    """All idle histories together have a bound in bytes; what is claimed is not in it."""

    KILOBYTE = "x" * 1000

    def talk(self, store: MemorySessions, session: str, answer: str, times: int = 1) -> None:
        claim = claimed(store, session)
        for _ in range(times):
            assert claim.commit(said("q", answer, 1))
        claim.release()

    def test_the_least_recently_used_go_for_a_new_one(self) -> None:
        store = MemorySessions(1000, 60, max_bytes=100_000)
        for number in range(200):
            self.talk(store, f"s{number}", self.KILOBYTE)
            assert level(store, "historyBytes") <= 100_000
        assert 20 < level(store, "sessions") < 60
        assert is_known(store, "s199")
        assert not is_known(store, "s0")

    def test_for_one_that_grows_too(self) -> None:
        store = MemorySessions(1000, 60, max_bytes=100_000)
        self.talk(store, "old", self.KILOBYTE)
        for _ in range(50):
            self.talk(store, "grows", self.KILOBYTE)
        assert level(store, "sessions") == 2
        while level(store, "sessions") == 2:
            self.talk(store, "grows", self.KILOBYTE)
            assert level(store, "historyBytes") <= 100_000
        assert is_known(store, "grows")

    def test_one_that_is_larger_than_all_is_forgotten_with_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        store = MemorySessions(1000, 60, max_bytes=100_000)
        self.talk(store, "small", self.KILOBYTE)
        self.talk(store, "large", self.KILOBYTE * 100)
        assert (is_known(store, "small"), is_known(store, "large")) == (True, False)
        assert "forgot a conversation of" in caplog.text
        assert store.claimed == 0

    def test_a_claimed_one_counts_on(self) -> None:
        store = MemorySessions(1000, 60, max_bytes=100_000)
        self.talk(store, "s", self.KILOBYTE)
        before = (level(store, "sessions"), level(store, "historyBytes"))
        claim = claimed(store, "s")
        assert (level(store, "sessions"), level(store, "historyBytes"), len(store)) == (*before, 1)
        claim.release()
        assert (level(store, "sessions"), level(store, "historyBytes"), len(store)) == (*before, 1)

    def test_one_that_is_forgotten_while_it_is_claimed_loses_nothing(self) -> None:
        store = MemorySessions(2, 60)
        self.talk(store, "claimed", self.KILOBYTE)
        claim = claimed(store, "claimed")
        for name in ("a", "b", "c"):
            self.talk(store, name, self.KILOBYTE)
        assert (level(store, "sessions"), len(store)) == (2, 3)
        claim.release()
        assert is_known(store, "claimed")
        assert level(store, "sessions") == 2

    def test_one_that_is_cleared_takes_nothing_more(self) -> None:
        store = MemorySessions(1000, 60)
        self.talk(store, "s", self.KILOBYTE)
        claim = claimed(store, "s")
        assert claim.commit(Change(resets=True))
        claim.release()
        assert (level(store, "sessions"), level(store, "historyBytes"), len(store)) == (0, 0, 0)

    def test_time_takes_them_out(self) -> None:
        clock = FakeClock()
        store = MemorySessions(10, 60, clock=clock)
        remember(store, "s")
        assert level(store, "historyBytes") > 0
        clock.pass_(61)
        assert (level(store, "sessions"), level(store, "historyBytes")) == (0, 0)

    def test_what_a_conversation_counts(self) -> None:
        """About its memory: texts by their characters' width, images by their data URI."""
        conversation = Conversation()
        empty = conversation.bytes
        conversation = conversation.after(said("q" * 10_000, "a", 1))
        assert 10_000 < conversation.bytes - empty < 12_000
        conversation = conversation.after(said("q", "\U0001f600" * 10_000, 1))
        assert 50_000 < conversation.bytes - empty < 54_000
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 30_000}}
        conversation = conversation.after(said([{"type": "text", "text": "what?"}, image], "a", 1))
        assert 80_000 < conversation.bytes - empty < 86_000
        conversation = conversation.after(Change(system_prompt="s" * 5000))
        assert 85_000 < conversation.bytes - empty < 92_000
        conversation = conversation.after(Change(forgotten=4))
        assert 35_000 < conversation.bytes - empty < 39_000
        conversation = conversation.after(Change(resets=True))
        assert conversation.bytes == empty


def conversation(*tokens: int) -> Conversation:
    """One turn for each of these lengths."""
    made = Conversation()
    for number, size in enumerate(tokens):
        made = made.after(said(f"q{number}", tokens=size))
    return made


def words(made: Conversation) -> list[str]:
    return [one.message["content"] for one in made.messages]


class TestConversation:
    def test_messages_are_in_openai_s_shape(self) -> None:
        assert [one.message for one in conversation(5).messages] == [
            {"role": "user", "content": "q0"},
            {"role": "assistant", "content": "a"},
        ]

    @pytest.mark.parametrize(
        ("tokens", "budget", "excess"),
        [
            ((10, 10), 20, 0),
            ((10, 10), 19, 2),  # 9 is half of it, and 10 is more
            ((10,) * 10, 99, 6),  # down to 40: a large step, not one turn
            ((10,) * 10, 100, 0),
            ((90, 5, 5), 99, 1),
            ((5, 5, 90), 99, 3),
            ((10, 10), 0, 2),
            ((10, 10), -50, 2),
            ((), 0, 0),
            ((), -5, 0),
        ],
    )
    def test_what_is_too_much(self, tokens: tuple[int, ...], budget: int, excess: int) -> None:
        assert conversation(*tokens).excess(budget) == 2 * excess

    def test_what_stays_begins_with_a_question(self) -> None:
        """A tool's call and its result go together with the question that they belong to, or stay with it."""
        call = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
        with_tool = Change(
            (
                remembered({"role": "user", "content": "what time is it?"}, 10),
                remembered(call, 10),
                remembered({"role": "tool", "tool_call_id": "1", "content": "noon"}, 10),
                remembered({"role": "assistant", "content": "It is noon."}, 10),
            )
        )
        made = Conversation().after(with_tool).after(said("thanks", tokens=10)).after(with_tool)
        assert [made.excess(budget) for budget in (90, 89, 80)] == [0, 6, 6]
        assert made.after(Change(forgotten=6)).messages == Conversation().after(with_tool).messages

    def test_asking_changes_nothing(self) -> None:
        asked = conversation(10, 10)
        asked.excess(5)
        assert (len(asked.messages), asked.tokens) == (4, 20)

    def test_a_change_leaves_the_conversation_before_it_as_it_was(self) -> None:
        before = conversation(10, 20)
        after = before.after(said("q2", tokens=5)._replace(forgotten=2))
        assert (words(before), before.tokens) == (["q0", "a", "q1", "a"], 30)
        assert (words(after), after.tokens) == (["q1", "a", "q2", "a"], 25)

    def test_the_oldest_messages_go(self) -> None:
        left = conversation(10, 20, 30).after(Change(forgotten=4))
        assert (words(left), left.tokens) == (["q2", "a"], 30)

    def test_a_reset_forgets_the_system_prompt_too(self) -> None:
        told = conversation(10).after(Change(system_prompt="You are a pirate."))
        assert told.system_prompt == "You are a pirate."
        assert told.after(Change(resets=True)) == Conversation()

    @given(st.lists(st.integers(1, 50), max_size=30), st.integers(-10, 400))
    def test_what_stays_fits(self, tokens: list[int], budget: int) -> None:
        long = conversation(*tokens)
        count = long.excess(budget)
        assert long.tokens_without(count) == sum(tokens[count // 2 :])
        left = long.after(Change(forgotten=count))
        assert left.tokens == sum(tokens[count // 2 :])
        assert left.tokens <= max(budget, 0)
        if count:
            assert left.tokens <= max(budget, 0) // 2
