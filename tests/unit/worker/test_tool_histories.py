"""Calls and their results in the histories that the worker keeps: answered whole, trimmed whole, dropped whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from inferbus_worker.chat import ToolCall, Usage
from inferbus_worker.engines.base import CancelledGenerationError, ChatCall, ContextTooLongError, EngineError
from inferbus_worker.settings.projects import ProjectSettings
from support.rooms import NOTHING, Chunk, Rooms, Script, answer, fail, replies
from support.tool_calls import TOOLS, called

pytestmark = pytest.mark.usefixtures("state")

A: Final = called("add", "{}", "a")
B: Final = called("add", "{}", "b")


def calling(*calls: ToolCall) -> Script:
    """A script that calls these, until their results come."""

    def script(call: ChatCall) -> Iterator[Chunk]:
        if call.messages[-1]["role"] == "tool":
            return iter(answer("fine")(call))
        return iter([Chunk(calls=calls, finish_reason="tool_calls", usage=Usage(3, 1))])

    return script


def allowed(script: Script | None = None, **settings: Any) -> Rooms:
    return Rooms(script=script or calling(A), projects={"general": ProjectSettings(tools=True)}, **settings)


def ask(rooms: Rooms, message: str = "question", **fields: Any) -> dict[str, Any]:
    """The last reply to a request that offers tools."""
    last: dict[str, Any] = replies(rooms.answer("s1", message, tools=TOOLS, **fields))[-1]
    return last


def result(rooms: Rooms, *ids: str, text: str = "it is 2", **fields: Any) -> dict[str, Any]:
    """The last reply to results of calls."""
    results = [{"toolCallId": each, "content": text} for each in ids]
    asked = {"sessionId": "s1", "toolResults": results, **fields}
    last: dict[str, Any] = replies([*rooms.receive("general/user_input", asked), *rooms.work()])[-1]
    return last


def roles(rooms: Rooms) -> str:
    """Who speaks in the prompt that the engine got last: a letter each, a call is a `c`."""
    return "".join("c" if one.get("tool_calls") else one["role"][0] for one in rooms.engine.calls[-1].messages)


class TestATurn:
    def test_goes_on_with_its_results(self) -> None:
        rooms = allowed(calling(A, B))
        assert [call["id"] for call in ask(rooms)["toolCalls"]] == ["a", "b"]
        assert result(rooms, "b", "a")["text"] == "fine"
        assert roles(rooms) == "uctt"
        rooms.engine.script = answer("fine")
        ask(rooms)
        assert roles(rooms) == "ucttau"
        assert rooms.left_behind == NOTHING

    @pytest.mark.parametrize(
        ("ids", "wrong"),
        [
            (["a"], "1 of the 2 calls have no result"),
            (["a", "c"], "not among the calls"),
            (["a", "b", "c"], "not among the calls"),
            (["a", "a"], "answers a call twice"),
        ],
    )
    def test_takes_the_results_of_all_its_calls_and_no_others(self, ids: list[str], wrong: str) -> None:
        rooms = allowed(calling(A, B))
        ask(rooms)
        refused = result(rooms, *ids)
        assert (refused["code"], wrong in refused["message"]) == ("invalid_request", True)
        assert result(rooms, "a", "b")["text"] == "fine"
        assert rooms.left_behind == NOTHING

    def test_that_called_nothing_takes_no_results(self) -> None:
        rooms = allowed(answer("fine"))
        assert "no calls of this session" in result(rooms, "a")["message"]
        ask(rooms)
        assert "no calls of this session" in result(rooms, "a")["message"]

    def test_is_dropped_by_a_plain_message(self) -> None:
        rooms = allowed()
        ask(rooms, "first")
        rooms.engine.script = answer("fine")
        ask(rooms, "second")
        assert roles(rooms) == "u"
        ask(rooms, "third")
        assert roles(rooms) == "uau"
        assert "no calls of this session" in result(rooms, "a")["message"]

    def test_of_several_rounds_is_dropped_as_a_whole(self) -> None:
        rooms = allowed()
        ask(rooms, "kept")
        result(rooms, "a")
        ask(rooms, "dropped")
        rooms.engine.script = lambda _call: [Chunk(calls=(B,), finish_reason="tool_calls", usage=Usage(3, 1))]
        result(rooms, "a")
        assert roles(rooms) == "uctauct"
        rooms.engine.script = answer("fine")
        ask(rooms)
        assert roles(rooms) == "uctau"

    def test_is_forgotten_by_a_reset(self) -> None:
        rooms = allowed()
        ask(rooms)
        rooms.receive("general/user_input/s1", b"")
        assert "no calls of this session" in result(rooms, "a")["message"]

    @pytest.mark.parametrize("error", [EngineError("no"), CancelledGenerationError(), ContextTooLongError()])
    def test_that_fails_can_be_answered_again(self, error: EngineError) -> None:
        rooms = allowed()
        ask(rooms)
        rooms.engine.script = fail(error)
        assert result(rooms, "a")["type"] == "error"
        rooms.engine.script = calling(A)
        assert result(rooms, "a")["text"] == "fine"
        assert roles(rooms) == "uct"

    def test_that_fails_at_its_plain_message_still_waits_for_results(self) -> None:
        """What was not answered has changed nothing."""
        rooms = allowed()
        ask(rooms)
        rooms.engine.script = fail(EngineError("no"))
        assert ask(rooms)["type"] == "error"
        rooms.engine.script = calling(A)
        assert result(rooms, "a")["text"] == "fine"

    def test_is_repeated_with_its_calls(self) -> None:
        rooms = allowed()
        twice = [ask(rooms, clientId="c", requestId="r") for _ in range(2)]
        assert twice[0]["toolCalls"] == twice[1]["toolCalls"] == [A]
        assert len(rooms.engine.calls) == 1


class TestTrimming:
    @pytest.mark.parametrize("most", range(0, 200, 20))
    def test_what_stays_begins_with_a_question_and_has_every_call_with_its_results(self, most: int) -> None:
        rooms = allowed(calling(A, B), max_history_tokens=most)
        for _ in range(4):
            ask(rooms)
            result(rooms, "a", "b")
        ask(rooms)
        assert roles(rooms) in {"uctta" * turns + "u" for turns in range(5)}

    def test_a_turn_that_goes_on_stays_whatever_it_takes(self) -> None:
        rooms = allowed(max_history_tokens=1)
        ask(rooms)
        assert result(rooms, "a", text="word " * 50)["text"] == "fine"
        assert roles(rooms) == "uct"

    def test_where_the_estimate_was_short_older_turns_go_and_the_last_stays(self) -> None:
        rooms = allowed(calling(A))
        ask(rooms)
        result(rooms, "a")
        ask(rooms)

        def at_most_three(call: ChatCall) -> Iterator[Chunk]:
            if len(call.messages) > 3:
                raise ContextTooLongError
            yield from answer("fine")(call)

        rooms.engine.script = at_most_three
        assert result(rooms, "a")["text"] == "fine"
        assert roles(rooms) == "uct"

    def test_a_turn_that_alone_is_too_long_says_so_and_can_be_given_up(self) -> None:
        rooms = allowed()
        ask(rooms)
        rooms.engine.script = fail(ContextTooLongError())
        assert result(rooms, "a")["code"] == "context_too_long"
        rooms.engine.script = answer("fine")
        assert ask(rooms)["text"] == "fine"
        assert roles(rooms) == "u"


class TestItsMemory:
    def test_what_a_session_holds_is_what_its_calls_and_results_take(self) -> None:
        """And all of it is given back with what goes."""
        rooms = allowed(calling(called("add", '"' + "x" * 50_000 + '"', "a")), max_history_tokens=10_000)
        ask(rooms)
        held = rooms.history_bytes
        assert 50_000 < held < 60_000
        result(rooms, "a", text="y" * 50_000)
        assert 100_000 < rooms.history_bytes < 120_000
        rooms.receive("general/user_input/s1", b"")
        assert rooms.history_bytes == 0

    def test_the_ids_of_results_count_too(self) -> None:
        """They are the backend's to make up."""
        call_id = "💥" * 256
        rooms = allowed(calling(called("add", "{}", call_id)))
        ask(rooms)
        before = rooms.history_bytes
        result(rooms, call_id)
        assert rooms.history_bytes - before > 4 * len(call_id)
