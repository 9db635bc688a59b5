"""Requests that bring their whole conversation along: they claim nothing, keep nothing, and are never trimmed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_worker.engines.base import ContextTooLongError
from inferbus_worker.flow.prompt import Prompts
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from support.rooms import NOTHING, Rooms, fail, replies, texts

pytestmark = pytest.mark.usefixtures("state")

BUSY = "Please wait, your previous message is still being processed..."
LIMITED = "Error: Rate limit exceeded. Please slow down your requests."
TOO_LARGE = "Error: Message too large."
PROMPTED = {"general": ProjectSettings(system_prompt="project's")}
ASKED = {"role": "user", "content": "hello"}
SYSTEM = {"role": "system", "content": "mine"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
WITH_TOOLS: list[dict[str, Any]] = [
    ASKED,
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]


def bring(rooms: Rooms, *messages: dict[str, Any], session: str = "s1", **fields: Any) -> list[Any]:
    """Such a request; what is to be published on admission."""
    said = list(messages) or [ASKED]
    return rooms.receive("general/user_input", {"sessionId": session, "messages": said, **fields})


def budgeted(budget: str, **settings: Any) -> Rooms:
    return Rooms(token_budget=budget, max_tokens=40, max_history_tokens=0, **settings)


def prompt(rooms: Rooms) -> list[Any]:
    """The last prompt that the engine got."""
    return list(rooms.engine.calls[-1].messages)


class TestTheConversation:
    def test_reaches_the_engine_as_it_is(self) -> None:
        rooms = Rooms()
        bring(rooms, *WITH_TOOLS)
        assert texts(rooms.work()) == ["fine"]
        assert prompt(rooms) == WITH_TOOLS

    def test_has_the_project_s_prompt_where_it_brings_none(self) -> None:
        rooms = Rooms(projects=PROMPTED)
        bring(rooms, ASKED)
        rooms.work()
        assert prompt(rooms) == [{"role": "system", "content": "project's"}, ASKED]

    @pytest.mark.parametrize("said", [[SYSTEM, ASKED], [ASKED, SYSTEM], [{**SYSTEM, "content": ""}, ASKED]])
    def test_with_a_system_message_replaces_the_project_s_prompt(self, said: list[dict[str, Any]]) -> None:
        rooms = Rooms(projects=PROMPTED)
        bring(rooms, *said)
        rooms.work()
        assert prompt(rooms) == said

    def test_may_have_a_system_prompt_for_itself_alone(self) -> None:
        rooms = Rooms(projects=PROMPTED)
        bring(rooms, ASKED, systemPrompt="for now")
        rooms.work()
        assert prompt(rooms) == [{"role": "system", "content": "for now"}, ASKED]
        rooms.answer("s1")
        assert prompt(rooms)[0] == {"role": "system", "content": "project's"}

    def test_neither_has_nor_leaves_a_history(self) -> None:
        rooms = Rooms()
        rooms.answer("s1", "kept")
        bring(rooms, ASKED)
        rooms.work()
        assert prompt(rooms) == [ASKED]
        rooms.answer("s1", "again")
        assert [each["content"] for each in prompt(rooms)] == ["kept", "fine", "again"]

    def test_makes_no_session(self) -> None:
        rooms = Rooms()
        bring(rooms)
        assert len(rooms.sessions) == 0
        rooms.work()
        assert len(rooms.sessions) == 0
        assert rooms.left_behind == NOTHING

    def test_too_long_for_the_context_is_never_trimmed(self) -> None:
        rooms = Rooms(script=fail(ContextTooLongError()))
        bring(rooms, ASKED, {"role": "assistant", "content": "fine"}, ASKED)
        assert texts(rooms.work()) == [Failure("context_too_long").sentence]
        assert len(rooms.engine.calls) == 1

    def test_keeps_its_salt_over_a_session_s_name(self) -> None:
        rooms = Rooms()
        for session in ("s1", "s1", "s2"):
            bring(rooms, session=session)
            rooms.work()
        rooms.answer("s1")
        first, second, other, kept = (call.cache_salt for call in rooms.engine.calls)
        assert first == second == kept != other

    def test_without_a_session_has_a_fresh_one_to_be_answered_in(self) -> None:
        rooms = Rooms()
        rooms.receive("general/user_input", {"messages": [ASKED]})
        (reply,) = rooms.work()
        assert reply.topic.startswith("general/assistant_response/default-")

    def test_is_answered_in_json_too(self) -> None:
        rooms = Rooms()
        bring(rooms, reply="json", requestId="r")
        done = replies(rooms.work())[-1]
        assert (done["type"], done["text"], done["requestId"], done["sessionId"]) == ("done", "fine", "r", "s1")


class TestAtOnce:
    def test_several_in_one_session(self) -> None:
        rooms = Rooms()
        for number in range(3):
            bring(rooms, requestId=f"r{number}", clientId="c")
        assert rooms.left_behind["in flight"] == 3
        assert texts(rooms.work()) == ["fine"] * 3
        assert rooms.left_behind == NOTHING

    def test_a_busy_session_is_not_in_the_way_nor_made_busy(self) -> None:
        rooms = Rooms()
        rooms.ask("s1")
        assert bring(rooms) == []
        assert texts(rooms.ask("s1")) == [BUSY]
        assert texts(rooms.work()) == ["fine", "fine"]
        bring(rooms)
        assert rooms.ask("s1") == []

    def test_a_cancel_with_an_id_ends_that_one_alone(self) -> None:
        rooms = Rooms()
        for number in range(3):
            bring(rooms, requestId=f"r{number}", reply="json")
        (cancelled,) = replies(rooms.receive("general/cancel/s1", {"requestId": "r1"}))
        assert (cancelled["requestId"], cancelled["code"]) == ("r1", "cancelled")
        assert [reply["requestId"] for reply in replies(rooms.work())] == ["r0", "r2"]

    def test_a_cancel_without_one_ends_all_of_the_session(self) -> None:
        rooms = Rooms()
        rooms.ask("s1")
        bring(rooms)
        bring(rooms)
        bring(rooms, session="s2")
        assert texts(rooms.receive("general/cancel/s1")) == ["Error: Request cancelled."] * 3
        assert texts(rooms.work()) == ["fine"]
        assert rooms.left_behind == NOTHING

    def test_a_reset_passes_them_by(self) -> None:
        rooms = Rooms()
        bring(rooms)
        assert texts(rooms.receive("general/user_input/s1")) == ["Conversation reset."]
        assert texts(rooms.work()) == ["fine"]

    def test_a_repeat_is_not_run_again(self) -> None:
        rooms = Rooms()
        for _ in range(2):
            bring(rooms, clientId="c", requestId="r")
        assert texts(rooms.work()) == ["fine"]
        assert texts(bring(rooms, clientId="c", requestId="r")) == ["fine"]
        assert len(rooms.engine.calls) == 1


class TestLimits:
    def test_of_the_session_do_not_hold(self) -> None:
        rooms = Rooms(rate=RateLimit(1, 60))
        for _ in range(3):
            assert bring(rooms) == []
        assert rooms.ask("s1") == []
        assert texts(rooms.ask("s1")) == [LIMITED]

    @pytest.mark.parametrize("limit", ["client_rate_limit", "project_rate_limit", "total_rate_limit"])
    def test_of_all_others_do(self, limit: str) -> None:
        settings: dict[str, Any] = {limit: "2/60s"}
        rooms = Rooms(**settings)
        bring(rooms, clientId="c")
        rooms.ask("s1", clientId="c")
        assert texts(bring(rooms, session="s2", clientId="c")) == [LIMITED]

    def test_of_the_tokens_are_charged_to_the_session_that_is_named(self) -> None:
        rooms = budgeted("100/60s")
        assert bring(rooms, SYSTEM, ASKED) == []  # 2 words, 8 each for the template, 40 of answer
        assert texts(bring(rooms, ASKED, ASKED, ASKED)) == [LIMITED]
        assert texts(rooms.ask("s1")) == [LIMITED]
        assert bring(rooms, session="s2") == []

    def test_of_the_tokens_count_the_project_s_prompt_and_calls(self) -> None:
        rooms = budgeted("500/60s", projects=PROMPTED)
        bring(rooms, *WITH_TOOLS)
        assert Prompts(rooms.settings).of(rooms.take(), rooms.engine).longest == (4 * 8 + 1 + 1 + 2 + 1, 40)

    def test_what_is_far_over_the_context_is_not_counted_to_its_end(self) -> None:
        rooms = budgeted("5000/60s")
        bring(rooms, *[{**ASKED, "content": "word " * 600}] * 5)
        assert Prompts(rooms.settings).of(rooms.take(), rooms.engine).longest == (2 * 608, 0)


class TestSize:
    def test_has_a_bound_of_its_own(self) -> None:
        rooms = Rooms(max_message_bytes=1000, max_conversation_bytes=5000)
        assert bring(rooms, {**ASKED, "content": "x" * 4000}) == []
        assert texts(bring(rooms, {**ASKED, "content": "x" * 5000})) == [TOO_LARGE]
        assert texts(rooms.ask(message="x" * 1000)) == [TOO_LARGE]
        assert texts(rooms.receive("general/user_input/s1", "x" * 1001)) == [TOO_LARGE]
        assert texts(rooms.ask(message="x" * 1000, messages=None)) == [TOO_LARGE]

    def test_may_be_the_smaller_of_the_two(self) -> None:
        rooms = Rooms(max_message_bytes=5000, max_conversation_bytes=1000)
        assert texts(bring(rooms, {**ASKED, "content": "x" * 1000})) == [TOO_LARGE]
        assert rooms.ask(message="x" * 4000) == []

    def test_over_it_is_refused_where_its_requester_listens(self) -> None:
        rooms = Rooms()
        (reply,) = bring(rooms, {**ASKED, "content": "x" * 1_100_000}, reply="json", requestId="r")
        assert reply.topic == "general/assistant_response/s1"
        assert (json.loads(reply.payload)["code"], json.loads(reply.payload)["requestId"]) == ("message_too_large", "r")

    def test_is_kept_until_the_model_is_there(self) -> None:
        rooms = Rooms()
        rooms.reception.hold()
        payload = {"sessionId": "s1", "messages": [{**ASKED, "content": "x" * 900_000}]}
        assert rooms.receive("general/user_input", payload, qos=1, ack_id=7) == []
        rooms.reception.release()
        assert texts(rooms.work()) == ["fine"]

    def test_up_to_it_what_the_bus_reads_is_whole(self) -> None:
        settings = Settings(max_message_bytes=64, max_conversation_bytes=2_000_000)
        assert settings.readable_bytes > settings.largest_request_bytes == 2_000_000

    def test_fits_into_the_intake_where_nobody_has_said_it(self) -> None:
        assert Settings().conversation_bytes == 1024 * 1024
        assert Settings(max_message_bytes=64, max_intake_bytes=100_000).conversation_bytes == 50_000
