"""The calls of one answer, put together from bits: good ones, and those of models and servers that mean no good."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import pytest

from inferbus_client.contract.wire import Done, decode_reply
from inferbus_client.contract.wire.messages import MAX_ARGUMENTS, MAX_TOOL_CALLS
from inferbus_worker.chat import CallDelta, ToolCall, ToolUse, Usage
from inferbus_worker.engines.base import Completion, EngineError
from inferbus_worker.engines.pending import PendingGeneration
from inferbus_worker.engines.simulated import Behaviour, SimulatedEngine
from inferbus_worker.engines.tool_calls import ToolCalls
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.calls import joined
from inferbus_worker.replies.stream import Backlog, ReplyStream
from inferbus_worker.settings.projects import ProjectSettings
from support.rooms import NOTHING, Rooms, replies
from support.tool_calls import TOOLS, asked, called

_USAGE: Final = Usage(1, 1)


def whole(*deltas: CallDelta, only_first: bool = False) -> list[tuple[str, str]]:
    """Names and arguments of what was put together."""
    calls = ToolCalls(only_first=only_first)
    calls.grow(deltas)
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls.whole()]


def sent(calls: tuple[ToolCall, ...]) -> Done:
    """What a client makes of an answer that calls these."""
    head: Any = {"request_id": "r", "session_id": "s", "seq": 0, "text": "", "finish_reason": "tool_calls"}
    done = decode_reply(Done(**head, tool_calls=list(calls)).encode())
    assert isinstance(done, Done)
    return done


class TestAssembly:
    def test_a_call_that_comes_in_bits_is_one(self) -> None:
        bits = [CallDelta(0, "a", "add", ""), CallDelta(0, None, None, '{"a"'), CallDelta(0, None, None, ": 1}")]
        assert whole(*bits) == [("add", '{"a": 1}')]

    def test_calls_that_take_turns_stay_apart(self) -> None:
        first = [CallDelta(0, "a", "add", '{"a"'), CallDelta(1, "b", "other", "{")]
        assert whole(*first, CallDelta(0, None, None, ": 1}"), CallDelta(1, None, None, "}")) == [
            ("add", '{"a": 1}'),
            ("other", "{}"),
        ]

    def test_they_are_numbered_as_they_begin_whatever_the_engine_calls_them(self) -> None:
        calls = ToolCalls()
        begun = calls.grow([CallDelta(7, "a", "add", "{}"), CallDelta(3, "b", "other", "{}")])
        assert [call.number for call in begun] == [0, 1]
        assert [call.number for call in calls.grow([CallDelta(3, None, None, " ")])] == [1]

    def test_its_id_and_name_stand_in_its_first_delta_alone(self) -> None:
        """Some servers say them every time."""
        calls = ToolCalls()
        (first,) = calls.grow([CallDelta(0, "a", "add", "{")])
        (second,) = calls.grow([CallDelta(0, "a", "add", "}")])
        assert (first.id, first.name, second) == ("a", "add", CallDelta(0, None, None, "}"))

    def test_a_number_that_comes_again_with_another_id_and_a_name_is_another_call(self) -> None:
        """Ollama's every call is number 0: merged they would be one call with the arguments of two."""
        deltas = [CallDelta(0, "a", "add", '{"a": 1}'), CallDelta(0, "b", "add", '{"a": 2}')]
        assert whole(*deltas, CallDelta(0, None, None, " ")) == [("add", '{"a": 1}'), ("add", '{"a": 2} ')]

    def test_another_id_alone_is_no_other_call(self) -> None:
        """Older vLLMs make one up for every delta."""
        assert whole(CallDelta(0, "a", "add", "{"), CallDelta(0, "b", None, "}")) == [("add", "{}")]

    def test_one_without_arguments_is_called_with_none(self) -> None:
        assert whole(CallDelta(0, "a", "add")) == [("add", "{}")]

    @pytest.mark.parametrize("second", [CallDelta(1, "b", "other", "{}"), CallDelta(0, "b", "other", "{}")])
    def test_where_only_one_may_be_the_others_are_left_out_with_all_that_belongs_to_them(
        self, second: CallDelta
    ) -> None:
        rest = CallDelta(second.number, None, None, "more")
        assert whole(CallDelta(0, "a", "add", "{}"), second, rest, only_first=True) == [("add", "{}")]

    def test_no_two_have_one_id_and_one_without_gets_one(self) -> None:
        calls = ToolCalls()
        calls.grow([CallDelta(number, call_id, "add", "{}") for number, call_id in enumerate(["a", "a", None, ""])])
        ids = [call["id"] for call in calls.whole()]
        assert ids[0] == "a"
        assert len(set(ids)) == 4
        assert all(ids)

    def test_the_deltas_join_to_the_whole(self) -> None:
        calls = ToolCalls()
        said = calls.grow([CallDelta(0, "a", "add", "{"), CallDelta(1, "b", "other"), CallDelta(0, None, None, "}")])
        assert joined(said) == [
            {"index": 0, "id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}},
            {"index": 1, "id": "b", "type": "function", "function": {"name": "other", "arguments": ""}},
        ]


class TestBounds:
    def test_there_are_only_so_many(self) -> None:
        calls = ToolCalls()
        calls.grow([CallDelta(number, None, "add") for number in range(MAX_TOOL_CALLS)])
        with pytest.raises(EngineError, match="more than 128 tools"):
            calls.grow([CallDelta(MAX_TOOL_CALLS, None, "add")])

    def test_arguments_are_only_so_long(self) -> None:
        calls = ToolCalls()
        calls.grow([CallDelta(0, None, "add", "x" * MAX_ARGUMENTS)])
        with pytest.raises(EngineError, match="65536 characters"):
            calls.grow([CallDelta(0, None, None, "x")])

    @pytest.mark.parametrize("name", [None, ""])
    def test_one_without_a_name_fails_the_answer(self, name: str | None) -> None:
        with pytest.raises(EngineError, match="without a name"):
            ToolCalls().grow([CallDelta(0, "a", name, "{}")])

    @pytest.mark.parametrize(
        ("call_id", "name", "arguments"),
        [
            *((call_id, "add", "{}") for call_id in ("a" * 300, "a\ud800", "\x00", " ", "💥" * 300)),
            *(("a", name, "{}") for name in ("f" * 300, "f\ud800 \n", "\x00", "💥")),
            *(("a", "add", each) for each in ("{", '{"a": "\ud800"}', "\x00", '{"a": "\\ud800"}', '{"a": NaN}', "[1]")),
        ],
    )
    def test_whatever_a_model_makes_up_a_client_can_read(self, call_id: str, name: str, arguments: str) -> None:
        """A reply that cannot be written is none: its requester would wait for ever."""
        calls = ToolCalls()
        deltas = calls.grow([CallDelta(0, call_id, name, arguments)])
        assert json.dumps(joined(deltas), ensure_ascii=False).encode()
        assert sent(calls.whole()).tool_calls is not None

    @pytest.mark.parametrize("arguments", ["[" * 1000, '{"a":' + "[" * 1000 + "]" * 1000 + "}"])
    def test_what_no_client_could_read_fails_the_answer(self, arguments: str) -> None:
        calls = ToolCalls()
        calls.grow([CallDelta(0, "a", "add", arguments)])
        with pytest.raises(EngineError):
            calls.whole()

    @pytest.mark.parametrize("arguments", ["[" * 1000, "\ud800", "x" * (MAX_ARGUMENTS + 1)])
    def test_and_if_one_came_through_its_request_would_have_its_end_all_the_same(self, arguments: str) -> None:
        address = ReplyAddress("general/assistant_response/s", "r", "s", json=True)
        stream = ReplyStream(address, lambda _stream: None, Backlog())
        stream.accepted(0, None)
        stream.end(Answered("", "tool_calls", tool_calls=(called("add", arguments),)))
        accepted, failed = replies(stream.outgoing())
        assert (failed["type"], failed["code"], failed["seq"]) == ("error", "engine_error", accepted["seq"] + 1)


class TestAnAnswerThatCalls:
    def ended(self, calls: ToolCalls | None, finish_reason: Any, *deltas: CallDelta) -> Completion:
        pending = PendingGeneration(None, None, lambda: None, calls)
        if deltas:
            pending.grow("", "", deltas)
        pending.complete(finish_reason, _USAGE)
        return pending.wait(time.monotonic() + 10)

    def test_it_ends_with_its_calls(self) -> None:
        answer = self.ended(ToolCalls(), "stop", CallDelta(0, "a", "add", "{}"))
        assert (answer.finish_reason, len(answer.tool_calls)) == ("tool_calls", 1)

    def test_without_calls_it_just_ends(self) -> None:
        answer = self.ended(ToolCalls(), "tool_calls")
        assert (answer.finish_reason, answer.tool_calls) == ("stop", ())

    def test_one_that_was_cut_calls_nothing(self) -> None:
        answer = self.ended(ToolCalls(), "length", CallDelta(0, "a", "add", '{"a'))
        assert (answer.finish_reason, answer.tool_calls) == ("length", ())

    def test_what_nobody_offered_is_not_called(self) -> None:
        with pytest.raises(EngineError, match="nobody has offered"):
            self.ended(None, "stop", CallDelta(0, "a", "add", "{}"))


class TestSimulated:
    """What it is told to call is a stranger's to write."""

    def answer(self, text: str, choice: Any = "auto", *, per_token: float = 0.0) -> Completion:
        engine = SimulatedEngine(Behaviour(per_token=per_token))
        engine.start()
        try:
            call = asked(text, tools=ToolUse(TOOLS, choice), max_tokens=100_000)
            return engine.generate(call).wait(time.monotonic() + 30)
        finally:
            engine.stop(10)

    @pytest.mark.parametrize("per_token", [0.0, 0.001])
    def test_it_calls_what_it_is_told_to(self, per_token: float) -> None:
        answer = self.answer('{"name": "other", "arguments": {"a": 1}}', per_token=per_token)
        (call,) = answer.tool_calls
        assert call["function"] == {"name": "other", "arguments": '{"a": 1}'}

    @pytest.mark.parametrize("choice", ["auto", "required"])
    def test_arguments_that_grow_when_they_are_written_are_bounded_too(self, choice: str) -> None:
        text = json.dumps({"name": "add", "arguments": {"a": "é" * 20_000}}, ensure_ascii=False)
        with pytest.raises(EngineError, match="65536 characters"):
            self.answer(text, choice)


@pytest.mark.usefixtures("state")
class TestForcedCalls:
    """An engine has to compile a grammar for them, as for an answer in a given form."""

    NAMED: Final = {"type": "function", "function": {"name": "add"}}
    STRICT: Final = [{"type": "function", "function": {"name": "add", "strict": True}}]

    def rooms(self, **settings: Any) -> Rooms:
        return Rooms(projects={"general": ProjectSettings(tools=True)}, **settings)

    @pytest.mark.parametrize(
        ("fields", "is_form"),
        [
            ({"tools": TOOLS, "toolChoice": "required"}, True),
            ({"tools": TOOLS, "toolChoice": NAMED}, True),
            ({"tools": STRICT}, True),
            ({"tools": STRICT, "toolChoice": "none"}, False),
            ({"tools": TOOLS}, False),
        ],
    )
    def test_they_have_a_form_s_share_of_the_threads_and_its_time(
        self,
        fields: dict[str, Any],
        is_form: bool,  # noqa: FBT001 - drawn
    ) -> None:
        rooms = self.rooms(form_share=0.5, form_timeout=7)
        rooms.pool.size = 2
        rooms.ask("one", **fields)
        second = replies(rooms.ask("two", **fields))[-1]
        assert (second["type"], second.get("code")) == (("error", "overloaded") if is_form else ("accepted", None))
        rooms.work()
        assert rooms.engine.calls[0].first_token_within == (7 if is_form else None)
        assert rooms.engine.calls[0].has_grammar == is_form
        assert rooms.left_behind == NOTHING

    def budgeted(self, budget: str = "500/1h") -> Rooms:
        return self.rooms(token_budget=budget, max_tokens=10, max_history_tokens=0)

    def test_what_is_offered_counts_in_the_budget_of_tokens(self) -> None:
        rooms = self.budgeted()
        long = [{**TOOLS[0], "function": {"name": "add", "description": "word " * 800}}]
        assert "It can take 8" in replies(rooms.ask(tools=long))[-1]["message"]
        assert replies(rooms.answer(tools=TOOLS))[-1]["type"] == "done"

    def test_results_that_fit_no_call_cost_no_tokens_and_leave_nothing(self) -> None:
        rooms = self.budgeted()
        asked_for = {"sessionId": "s1", "toolResults": [{"toolCallId": "a", "content": "x"}]}
        # In a group its turn finds that out: admission does not read histories.
        refused = replies([*rooms.receive("general/user_input", asked_for), *rooms.work()])[-1]
        assert refused["code"] == "invalid_request"
        assert sum(rooms.charges()) == 0
        assert rooms.left_behind == NOTHING
