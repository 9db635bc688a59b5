"""The token budget: charged with the most at admission, settled with what was used, never over in any window.

A token is a word; a message counts eight more for the template. The scripted engine says that it used 3 + 1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import ChatCall, EngineError
from inferbus_worker.settings.projects import ProjectSettings
from support.rooms import NOTHING, Chunk, Rooms, Script, fail, replies, texts
from support.tool_calls import TOOLS, called

pytestmark = pytest.mark.usefixtures("state")

State = Literal["memory", "redis"]

LIMITED = "Error: Rate limit exceeded. Please slow down your requests."
OVERLOADED = "Server is overloaded. Please try again in a moment."


def rooms(budget: str = "200/60s", **settings: Any) -> Rooms:
    """Without history a request of one word costs 9 tokens and what may be generated, 50 unless it says."""
    return Rooms(token_budget=budget, **{"max_history_tokens": 0, "max_tokens": 50, **settings})


def charged(under_test: Rooms, session: str = "s1") -> int:
    """The tokens in the session's window now."""
    return sum(under_test.charges(session))


def using(prompt: int, completion: int) -> Script:
    def script(_call: ChatCall) -> Iterator[Chunk]:
        yield Chunk("fine", finish_reason="stop", usage=Usage(prompt, completion))

    return script


class TestCharge:
    def test_is_the_prompt_and_what_may_be_generated(self) -> None:
        under_test = rooms()
        under_test.ask(message="one two three")
        assert charged(under_test) == 3 + 8 + 50

    def test_what_the_request_asks_for_counts(self) -> None:
        under_test = rooms()
        under_test.ask(maxTokens=100)
        assert charged(under_test) == 1 + 8 + 100

    def test_system_prompt_and_images_count(self) -> None:
        under_test = rooms("3000/60s", projects={"general": ProjectSettings(system_prompt="be very brief")})
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        under_test.ask(message=[{"type": "text", "text": "what?"}, image])  # type: ignore[arg-type]
        assert charged(under_test) == 3 + 8 + 1 + 1024 + 8  # the context of 1000 has no room for an answer

    def test_the_history_counts_as_far_as_it_goes_into_the_prompt(self, state: State) -> None:
        """Admission in a group does not read it: before one that is too long is cut it counts as what may stay."""
        under_test = rooms("1000/60s", max_history_tokens=100)
        used = 0
        for number in range(12):
            under_test.ask()
            in_prompt = 18 * (number if number <= 5 else (number - 6) % 4 + 2)  # cut to two when a sixth is too much
            is_cut = number > 5 and in_prompt == 36
            if is_cut and state == "redis":
                in_prompt = 100
            assert charged(under_test) == used + in_prompt + 9 + 50, number
            under_test.work()
            used += 4

    def test_an_answer_is_no_longer_than_the_context(self) -> None:
        under_test = rooms("1001/60s")
        under_test.ask(maxTokens=1_000_000)
        assert charged(under_test) == 1000

    def test_a_session_s_own_system_prompt_counts_instead_of_the_project_s(self) -> None:
        under_test = rooms(projects={"general": ProjectSettings(system_prompt="be very brief")})
        under_test.ask(systemPrompt="a b c d e")
        assert charged(under_test) == 5 + 8 + 1 + 8 + 50
        under_test.work()
        for _ in range(2):
            used = charged(under_test)
            under_test.ask()
            assert charged(under_test) == used + 5 + 8 + 1 + 8 + 50
            under_test.work()
        under_test.ask(systemPrompt="")
        assert charged(under_test) == used + 4 + 1 + 8 + 50

    def test_with_a_history_too_an_answer_is_no_longer_than_the_context(self) -> None:
        under_test = rooms("2020/60s", max_history_tokens=500)
        for _ in range(3):
            under_test.answer()
        under_test.ask(maxTokens=1_000_000)
        assert charged(under_test) == 3 * 4 + 1000

    def test_results_of_calls_cost_what_they_say(self) -> None:
        calls = (called("add", "{}", "a"), called("add", "{}", "b"))
        under_test = rooms(
            script=lambda _call: [Chunk(calls=calls, finish_reason="tool_calls", usage=Usage(3, 1))],
            projects={"general": ProjectSettings(tools=True)},
            max_history_tokens=100,
        )
        under_test.answer(tools=TOOLS)
        used = charged(under_test)
        results = [{"toolCallId": each, "content": "it is two"} for each in "ab"]
        (accepted,) = replies(under_test.receive("general/user_input", {"sessionId": "s1", "toolResults": results}))
        assert accepted["type"] == "accepted"
        assert charged(under_test) == used + 9 + (1 + 8) + 2 * (3 + 8) + 50


class TestSettling:
    def test_what_was_used_stands_in_its_place(self) -> None:
        under_test = rooms(script=using(20, 7))
        under_test.answer()
        assert charged(under_test) == 27

    def test_what_was_used_may_be_more_than_was_thought(self) -> None:
        under_test = rooms(script=using(190, 10))
        under_test.answer()
        assert texts(under_test.ask()) == [LIMITED]

    def test_what_failed_in_the_engine_keeps_its_charge(self) -> None:
        under_test = rooms(script=fail(EngineError("broken")))
        under_test.answer()
        assert charged(under_test) == 59

    def test_what_never_reached_it_costs_nothing(self) -> None:
        under_test = rooms()
        under_test.ask()
        under_test.receive("general/cancel/s1")
        assert texts(under_test.work()) == []
        assert charged(under_test) == 0

    def test_what_was_too_late_for_it_costs_nothing(self) -> None:
        under_test = rooms()
        under_test.ask(deadlineMs=1000)
        under_test.clock.pass_(2)
        assert texts(under_test.work()) == ["Error: Deadline exceeded."]
        assert charged(under_test) == 0

    def test_one_cancelled_while_it_is_answered_keeps_it(self) -> None:
        under_test = rooms()

        def cancelled(_call: ChatCall) -> Iterator[Chunk]:
            yield Chunk("half")
            under_test.receive("general/cancel/s1")
            yield Chunk("more")

        under_test.engine.script = cancelled
        under_test.answer()
        assert charged(under_test) == 59

    def test_one_that_a_shutdown_ends_before_the_engine_saw_it_costs_nothing(self) -> None:
        under_test = rooms()
        under_test.ask()
        under_test.endings.write(under_test.take(), Failure("shutting_down"))
        assert charged(under_test) == 0


class TestRefused:
    def test_holds_until_enough_has_left_the_window(self) -> None:
        under_test = rooms(script=using(60, 30))  # 90 of 200 each
        for _ in range(2):
            assert texts(under_test.answer()) == ["fine"]
            under_test.clock.pass_(10)
        (reply,) = under_test.ask()
        assert (reply.payload.decode(), reply.retry_after_ms) == (LIMITED, 40_000)
        assert under_test.left_behind == NOTHING
        under_test.clock.pass_(40)
        assert texts(under_test.answer()) == ["fine"]

    def test_a_refusal_in_json_is_retryable(self) -> None:
        under_test = rooms(script=using(150, 30))
        under_test.answer()
        (reply,) = replies(under_test.ask(reply="json"))
        assert (reply["code"], reply["retryable"], reply["retryAfterMs"]) == ("rate_limited", True, 60_000)

    def test_a_refused_one_is_not_charged(self) -> None:
        under_test = rooms(script=using(100, 50))
        under_test.answer()
        for _ in range(10):
            assert texts(under_test.ask()) == [LIMITED]
        assert charged(under_test) == 150

    def test_other_sessions_have_budgets_of_their_own(self) -> None:
        under_test = rooms(script=using(100, 90))
        assert texts(under_test.answer("a")) == ["fine"]
        assert texts(under_test.answer("a")) == [LIMITED]
        assert texts(under_test.answer("b")) == ["fine"]

    def test_one_that_can_never_pass_is_told_so_with_the_figures(self) -> None:
        under_test = rooms()
        (reply,) = under_test.ask(message="word " * 100, maxTokens=93)
        assert reply.payload == (
            b"Error: Invalid request. It can take 108 tokens of prompt and 93 of answer; a session has 200 in 1m."
        )
        assert under_test.left_behind == NOTHING
        assert texts(under_test.answer(message="word " * 100, maxTokens=92)) == ["fine"]

    def test_a_smaller_one_still_passes(self) -> None:
        under_test = rooms(script=using(100, 50))
        under_test.answer()
        assert texts(under_test.ask()) == [LIMITED]
        assert texts(under_test.answer(maxTokens=41)) == ["fine"]

    def test_where_there_is_no_room_nothing_is_charged(self) -> None:
        under_test = rooms(queue_size=1)
        under_test.ask("other")
        assert texts(under_test.ask()) == [OVERLOADED]
        under_test.work()
        under_test.ask()
        assert charged(under_test) == 59

    def test_a_refused_one_counts_in_the_rate_limits(self) -> None:
        under_test = rooms(script=using(100, 90), client_rate_limit="2/60s")
        under_test.answer()
        assert texts(under_test.ask()) == [LIMITED]
        under_test.clock.pass_(30)
        (reply,) = under_test.ask("another")
        assert reply.retry_after_ms == 30_000  # by the client's limit: this session has spent nothing

    def test_a_tokenizer_that_fails_is_an_answer_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        under_test = rooms()

        def broken(_text: str) -> int:
            raise ValueError("no such token")

        monkeypatch.setattr(under_test.engine, "count_tokens", broken)
        assert texts(under_test.ask()) == ["Error: The model failed to answer."]
        assert under_test.left_behind == NOTHING


class TestBounds:
    def test_the_table_of_sessions(self, state: State) -> None:
        """In a store each goes with its window, and there are no more than requests in that."""
        under_test = rooms(rate_limit_sessions=5)
        for number in range(50):
            under_test.answer(f"s{number}")
        assert under_test.budgeted == (5 if state == "memory" else 50)

    def test_it_empties_with_the_window(self) -> None:
        under_test = rooms()
        under_test.answer()
        assert under_test.budgeted == 1
        under_test.clock.pass_(60)
        assert under_test.budgeted == 0

    def test_very_many_charges_are_kept_together_and_leave_late_rather_than_early(self) -> None:
        under_test = rooms("1000/60s", script=using(1, 1))
        for _ in range(200):
            assert texts(under_test.answer()) == ["fine"]
            under_test.clock.pass_(0.125)
        assert len(under_test.charges()) <= 64
        assert charged(under_test) == 400
        under_test.clock.pass_(59.875 - 25)  # the first one's window ends; it has become one with later ones
        under_test.answer()
        assert charged(under_test) == 402


def test_in_no_window_is_more_used_than_the_budget() -> None:
    """By a model that keeps everything, where usage is never over the estimate."""
    chance = random.Random(7)  # noqa: S311 - no secret
    under_test = rooms()
    used: list[tuple[float, int]] = []

    def some(call: ChatCall) -> Iterator[Chunk]:
        tokens = chance.randint(1, call.sampling.max_tokens)
        used.append((under_test.clock.now, 9 + tokens))
        yield Chunk("x", finish_reason="stop", usage=Usage(9, tokens))

    under_test.engine.script = some
    for _ in range(2000):
        under_test.clock.pass_(chance.randint(0, 8))
        under_test.answer(maxTokens=chance.randint(1, 150))
        assert sum(tokens for at, tokens in used if at > under_test.clock.now - 60) <= 200
    assert len(used) > 500


def test_off_costs_nothing() -> None:
    under_test = Rooms()
    assert under_test.stores.budgets is None
    assert [texts(under_test.answer(maxTokens=1_000_000)) for _ in range(50)] == [["fine"]] * 50
