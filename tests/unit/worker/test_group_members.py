"""Two workers of a group, over one store: what one has admitted the other runs, ends, takes over, and never twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.admission.arrival import Arrival
from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import ChatCall
from inferbus_worker.group.writing import Body, write_body
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.keys import SessionKey
from support.rooms import NOTHING, Chunk, Rooms, Script, answer, replies, texts
from support.shared import Shared
from support.tool_calls import TOOLS, called

pytestmark = pytest.mark.usefixtures("in_groups")

CANCELLED = "Error: Request cancelled."
CANCEL = "general/cancel/s1"
REQUEST = "general/user_input/s1"


def two(script: Script | None = None, **settings: Any) -> tuple[Rooms, Rooms]:
    first = Rooms(worker_id="a", script=script, **settings)
    second = Rooms(worker_id="b", script=script, beside=first, **settings)
    shared(first).beat()
    return first, second


def shared(rooms: Rooms) -> Shared:
    assert rooms.shared is not None
    return rooms.shared


def types(said: list[Outgoing]) -> list[tuple[str, int, int]]:
    """What was said: its type, its number, its run."""
    return [(reply["type"], reply["seq"], reply.get("run", 0)) for reply in replies(said)]


def in_one_go(monkeypatch: pytest.MonkeyPatch, rooms: Rooms, *messages: tuple[str, str]) -> None:
    """Let the desk have all of these together, as the intake's thread finds them."""
    arrivals: list[Arrival] = []
    monkeypatch.setattr(rooms.intake, "put", arrivals.append)
    for topic, payload in messages:
        rooms.reception.receive(Incoming(topic=topic, payload=payload.encode()))
    shared(rooms).membership.desk.handle_all(arrivals)


class TestOneAdmitsAnotherRuns:
    def test_the_requester_sees_one_worker(self) -> None:
        a, b = two()
        said = a.ask(stream=True)
        assert replies(said)[0]["worker"] == "a"
        assert a.left_behind["in flight"] == 1
        said += b.work()
        assert types(said) == [("accepted", 0, 0), ("delta", 1, 0), ("done", 2, 0)]
        assert len(b.engine.calls) == 1
        assert a.work() == []
        assert a.left_behind == b.left_behind == NOTHING

    def test_all_that_was_asked_for_goes_with_it(self) -> None:
        projects = {"general": ProjectSettings(tools=True, response_format=True)}
        a, b = two(projects=projects, reply_topics=["elsewhere/#"], form_share=1)
        fields: dict[str, Any] = {"params": {"seed": 3, "response_format": {"type": "json_object"}}, "topP": 0.5}
        asked = {"message": "häh? \u2028", "sessionId": "s1", "maxTokens": 7, "systemPrompt": "", **fields}
        a.receive("general/user_input", asked, response_topic="elsewhere/me", correlation_data=b"\x00\xff\n")
        (reply,) = b.work()
        (call,) = b.engine.calls
        assert (call.sampling.max_tokens, call.sampling.top_p, call.sampling.extra["seed"]) == (7, 0.5, 3)
        assert call.messages == [{"role": "user", "content": "häh? \u2028"}]
        assert call.has_form
        assert reply.topic == "elsewhere/me"
        assert reply.address is not None
        assert reply.address.correlation_data == b"\x00\xff\n"

    def test_a_conversation_goes_on_wherever_it_is(self) -> None:
        a, b = two()
        for rooms in (a, b, b, a, b):
            a.ask(message="hello", systemPrompt="Be brief." if rooms is a else None)
            a.clock.pass_(1)  # who had its last turn waits no more for it
            assert texts(rooms.work()) == ["fine"]
        assert [len(call.messages) for call in a.engine.calls] == [2, 8]
        assert [len(call.messages) for call in b.engine.calls] == [4, 6, 10]
        assert b.engine.calls[-1].messages[0] == {"role": "system", "content": "Be brief."}

    def test_calls_of_tools_that_one_has_made_the_other_hears_the_results_of(self) -> None:
        call = called("add", "{}", "a")

        def script(asked: ChatCall) -> Iterator[Chunk]:
            if asked.messages[-1]["role"] == "tool":
                return iter(answer("fine")(asked))
            return iter([Chunk(calls=[call], finish_reason="tool_calls", usage=Usage(3, 1))])

        a, b = two(script, projects={"general": ProjectSettings(tools=True)})
        a.ask(tools=TOOLS)
        assert replies(a.work())[-1]["toolCalls"] == [call]
        result = {"sessionId": "s1", "toolResults": [{"toolCallId": "a", "content": "it is 2"}]}
        a.receive("general/user_input", result)
        a.clock.pass_(1)
        assert replies(b.work())[-1]["text"] == "fine"

    def test_a_reset_by_one_is_a_reset_for_the_other(self) -> None:
        a, b = two()
        a.answer()
        b.receive("general/user_input/s1", b"")
        a.answer()
        assert [len(call.messages) for call in a.engine.calls] == [1, 1]

    def test_a_repeat_is_known_to_both(self) -> None:
        a, b = two()
        ids = {"clientId": "c", "requestId": "r", "reply": "json"}
        first = a.answer(**ids)
        (again,) = b.ask(**ids)
        assert json.loads(again.payload) == {**replies(first)[-1], "seq": 0}
        assert b.engine.calls == []

    def test_limits_and_room_are_those_of_both(self) -> None:
        a, b = two(client_rate_limit="2/60s", queue_size=3)
        said = [texts(rooms.ask(f"s{number}", clientId="c")) for number, rooms in enumerate((a, b, a))]
        assert said == [[], [], [Failure("rate_limited").sentence]]
        assert texts(a.ask("s3")) == []
        assert texts(b.ask("s4")) == [Failure("overloaded").sentence]

    def test_a_session_that_is_busy_is_busy_for_both(self) -> None:
        a, b = two()
        a.ask()
        assert texts(b.ask()) == [Failure("session_busy").sentence]

    def test_a_slot_that_is_free_takes_what_is_admitted_at_once(self) -> None:
        a, _ = two()
        courier = shared(a).courier
        shared(a).takes_at_once = True
        courier.asked.clear()
        a.ask()
        assert courier.asked == ["beat", "admit", "confirm"]
        assert texts(a.work()) == ["fine"]


class TestGranted:
    """A request that begins to run while its admitter has yet to hear that its confirmation has arrived."""

    def asked(self, script: Script | None = None) -> tuple[Rooms, Rooms]:
        a, b = two(script)
        shared(a).takes_at_once = True
        shared(a).courier.holds = True
        assert a.ask(stream=True, requestId="r", clientId="c") == []
        assert a.work() == []
        assert len(a.engine.calls) == 1
        return a, b

    def test_what_it_says_waits_for_that(self) -> None:
        a, b = self.asked()
        shared(a).courier.comes_back()
        assert types(a.work()) == [("accepted", 0, 0), ("delta", 1, 0), ("done", 2, 0)]
        assert a.left_behind == b.left_behind == NOTHING

    def test_where_it_came_too_late_that_alone_is_said(self) -> None:
        a, b = self.asked()
        a.clock.pass_(11)
        shared(b).look()
        shared(a).courier.comes_back()
        (refusal,) = replies(a.work())
        assert (refusal["type"], refusal["code"]) == ("error", "engine_unavailable")
        assert b.work() == []
        assert a.left_behind == b.left_behind == NOTHING

    def test_where_another_worker_has_it_nothing_is_said(self) -> None:
        """The broker believed its worker dead, and has dealt it anew."""
        a, b = self.asked()
        said = b.answer(stream=True, requestId="r", clientId="c")
        assert types(said) == [("accepted", 0, 0), ("delta", 1, 0), ("done", 2, 0)]
        shared(a).courier.comes_back()
        assert a.work() == []
        assert a.left_behind == b.left_behind == NOTHING

    def test_that_is_cancelled_meanwhile_ends_with_that(self) -> None:
        a, _ = two()
        shared(a).takes_at_once = True
        shared(a).courier.holds = True
        assert a.ask(stream=True, requestId="r", clientId="c") == []
        assert a.receive(CANCEL, {"requestId": "r"}) == []
        shared(a).courier.comes_back()
        assert [reply.get("code") for reply in replies(a.work())] == [None, "cancelled"]
        assert a.left_behind == NOTHING


class TestAffinity:
    def test_a_session_s_next_turn_is_for_the_one_who_had_the_last(self) -> None:
        a, b = two()
        a.answer()
        a.clock.pass_(1)
        b.ask()
        assert b.work() == []
        assert texts(a.work()) == ["fine"]

    def test_for_a_short_while(self) -> None:
        a, b = two()
        a.answer()
        a.clock.pass_(1)
        b.ask()
        b.clock.pass_(0.051)
        assert texts(b.work()) == ["fine"]
        assert len(b.engine.calls[0].messages) == 3

    def test_and_not_for_one_who_has_left(self) -> None:
        a, b = two()
        a.answer()
        shared(a).courier.post(shared(a).membership.group.leave())
        b.ask()
        assert texts(b.work()) == ["fine"]


class TestCancels:
    """Each worker hears each cancel, in whatever order."""

    @pytest.mark.parametrize("first", [0, 1])
    def test_of_what_waits_is_answered_once(self, first: int) -> None:
        pair = two()
        pair[0].ask()
        said = [text for rooms in (pair[first], pair[1 - first]) for text in texts(rooms.receive(CANCEL))]
        assert said == [CANCELLED]
        assert [rooms.work() for rooms in pair] == [[], []]
        assert pair[0].left_behind == NOTHING

    @pytest.mark.parametrize("first", [0, 1])
    def test_of_what_runs_is_answered_by_who_runs_it(self, first: int) -> None:
        pair = two()
        a, b = pair

        def script(_call: ChatCall) -> Iterator[Chunk]:
            yield Chunk("half")
            for rooms in (pair[first], pair[1 - first]):
                assert rooms.receive(CANCEL) == []
            assert texts(a.ask(message="next")) == []  # its session is free at once
            yield Chunk("too late", finish_reason="stop", usage=Usage(1, 1))

        b.engine.script = script
        a.ask()
        b.turns.run(b.take())
        assert texts(b.sent()) == [CANCELLED]
        b.engine.script = answer("fine")
        assert texts(b.work()) == ["fine"]
        assert [len(call.messages) for call in b.engine.calls] == [1, 1]
        assert a.left_behind == NOTHING

    def test_that_its_worker_has_not_heard_it_hears_of_with_its_lease(self) -> None:
        a, b = two()

        def script(_call: ChatCall) -> Iterator[Chunk]:
            yield Chunk("half")
            a.receive(CANCEL)
            shared(b).look()
            yield Chunk("too late", finish_reason="stop", usage=Usage(1, 1))

        b.engine.script = script
        a.ask()
        assert texts(b.work()) == [CANCELLED]

    def test_that_come_with_their_request_in_one_go_let_the_next_one_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        a, _ = two()
        in_one_go(monkeypatch, a, (REQUEST, "first"), (CANCEL, ""), (REQUEST, "second"))
        shared(a).look()
        assert texts(a.sent()) == [CANCELLED]
        assert texts(a.work()) == ["fine"]
        assert a.engine.calls[0].messages[-1]["content"] == "second"
        assert a.left_behind == NOTHING

    def test_of_a_request_that_waits_let_in_what_comes_behind_them_in_one_go(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a, _ = two()
        a.ask(message="first")
        in_one_go(monkeypatch, a, (CANCEL, ""), (REQUEST, "second"))
        assert texts([*a.sent(), *a.work()]) == [CANCELLED, "fine"]
        assert a.left_behind == NOTHING

    def test_that_overtake_their_request_are_remembered_for_a_while(self) -> None:
        a, b = two()
        b.receive(CANCEL, {"requestId": "r"})
        assert texts(a.ask(reply="text", requestId="r")) == [CANCELLED]
        a.clock.pass_(3)
        assert texts(a.answer(reply="text", requestId="r")) == ["fine"]


class TestTakingOver:
    def test_what_a_lost_worker_ran_begins_anew_and_says_so(self) -> None:
        a, b = two()
        said = a.ask(stream=True)
        lost = a.take()
        lost.replies.delta("half")
        said += a.sent()
        a.clock.pass_(11)
        shared(b).look()
        b.clock.pass_(0.1)
        said += b.work()
        assert types(said)[2:] == [("accepted", 0, 1), ("delta", 1, 1), ("done", 2, 1)]
        a.turns.run(lost)  # it lives after all
        assert a.sent() == []
        assert b.left_behind == NOTHING

    def test_who_hears_that_he_has_lost_it_stops(self) -> None:
        a, b = two()

        def script(_call: ChatCall) -> Iterator[Chunk]:
            yield Chunk("half")
            a.clock.pass_(11)
            shared(b).look()
            shared(a).look()
            yield Chunk("and more")

        a.engine.script = script
        a.ask()
        a.turns.run(a.take())
        assert a.sent() == []
        assert a.engine.generations[0].cancelled
        assert texts(b.work()) == ["fine"]
        assert b.left_behind == NOTHING

    def test_a_reply_that_was_written_is_said_in_the_same_words_and_nothing_is_run(self) -> None:
        a, b = two()
        a.ask(reply="json", correlation_data=None)
        a.turns.run(a.take())
        (stream,) = a.replies.streams
        (owed,) = [message for message in stream.outgoing() if message.terminal]  # and it is lost on its way
        a.clock.pass_(11)
        shared(b).look()
        (said,) = b.sent()
        assert (said.topic, said.payload, said.status) == (owed.topic, owed.payload, owed.status)
        assert b.engine.calls == []
        assert b.left_behind == NOTHING
        assert shared(b).courier.names("job:") == []

    def test_one_that_ends_workers_is_given_up(self) -> None:
        a, b = two(max_attempts=2)
        a.ask()
        for _ in range(2):
            a.take()  # and it is never heard of again
            a.clock.pass_(11)
            shared(b).look()
            a.clock.pass_(0.1)
        assert texts(b.sent()) == [Failure("engine_error").sentence]
        assert b.left_behind == NOTHING

    def test_a_worker_that_leaves_hands_over_what_it_has_not_begun_and_what_it_runs(self) -> None:
        a, b = two()
        for session in ("s1", "s2"):
            a.ask(session)
        running = a.take()
        a.next_is_here()
        shared(a).membership.hand_over()
        assert len(b.work()) == 2
        a.turns.run(running)
        assert a.work() == []
        assert b.left_behind == NOTHING

    def test_what_nobody_has_confirmed_nobody_runs(self) -> None:
        a, b = two()
        courier = shared(a).courier
        shared(a).beat()
        courier.loses_answers = True
        assert texts(a.ask()) == [Failure("engine_unavailable").sentence]
        courier.is_away = True
        a.clock.pass_(11)
        assert b.work() == []
        shared(b).look()
        assert b.left_behind == NOTHING

    def test_what_was_refused_since_the_store_was_away_is_withdrawn_when_it_is_back(self) -> None:
        a, b = two()
        shared(a).courier.loses_answers = True
        a.ask()
        shared(a).courier.comes_back()
        assert a.left_behind == NOTHING
        assert texts(b.answer()) == ["fine"]


class TestWhatTheStoreForgets:
    """A failover without a replica's word, or somebody who empties it."""

    def forgotten(self, lies_for: float, *, renews: bool) -> tuple[Rooms, list[Outgoing]]:
        def script(_call: ChatCall) -> Iterator[Chunk]:
            a.clock.pass_(lies_for)
            shared(a).courier.store.client.delete(*names())
            if renews:
                shared(a).look()
            yield Chunk("fine")
            yield Chunk(finish_reason="stop", usage=Usage(1, 1))

        def names() -> list[str]:
            courier = shared(a).courier
            return [courier.prefix + name for name in courier.names("") if name != "clock"]

        a, b = two(script)
        said = a.answer(stream=True, clientId="c", requestId="r")
        assert a.left_behind == NOTHING
        assert texts(b.work()) == []
        return a, said

    @pytest.mark.parametrize("renews", [False, True])
    def test_what_runs_is_answered_all_the_same(self, *, renews: bool) -> None:
        a, said = self.forgotten(5, renews=renews)
        assert types(said) == [("accepted", 0, 0), ("delta", 1, 0), ("done", 2, 0)]
        assert types(a.answer(stream=True))[-1] == ("done", 2, 0), "and its session goes on"

    @pytest.mark.parametrize("renews", [False, True])
    def test_unless_another_worker_may_have_had_it(self, *, renews: bool) -> None:
        _, said = self.forgotten(11, renews=renews)
        assert "done" not in [kind for kind, *_ in types(said)]

    def test_that_it_was_confirmed(self) -> None:
        """It has gone back to what it was before."""

        def script(_call: ChatCall) -> Iterator[Chunk]:
            courier = shared(a).courier
            (job,) = courier.names("job:")
            client, prefix, name = courier.store.client, courier.prefix, job.removeprefix("job:")
            client.hset(prefix + job, mapping={"state": "unconfirmed", "token": ""})
            client.zrem(f"{prefix}leases", name)
            client.zadd(f"{prefix}unconfirmed", {name: 0})
            yield Chunk("fine")
            yield Chunk(finish_reason="stop", usage=Usage(1, 1))

        a, b = two(script)
        assert texts(a.answer()) == ["fine"]
        a.clock.pass_(11)
        shared(b).look()
        assert texts(b.work()) == []


class TestWhatCannotBeRead:
    """A newer worker may accept what this one has no word for."""

    def spoil(self, rooms: Rooms, field: str, value: bytes) -> None:
        courier = shared(rooms).courier
        (job,) = courier.names("job:")
        courier.store.client.hset(courier.prefix + job, field, value)

    def test_is_answered_all_the_same_and_holds_up_nobody(self) -> None:
        a, b = two()
        a.ask("s1", requestId="r")
        body = Body(SessionKey("general", "s1"), ReplyAddress("t", "r", "s1"), b'{"message": 7}')
        self.spoil(a, "body", write_body(body))
        a.ask("s2")
        shared(b).takes_at_once = True  # all three in one go
        assert texts(b.ask("s3")) == [Failure("engine_unavailable").sentence]
        assert texts(b.work()) == ["fine", "fine"]
        assert b.left_behind == NOTHING

    def test_in_which_nobody_is_named_is_forgotten(self) -> None:
        a, b = two()
        a.ask("s1")
        self.spoil(a, "body", b"\x00")
        a.ask("s2")
        assert texts(b.work()) == ["fine"]
        assert b.left_behind == NOTHING
        assert shared(b).courier.names("job:") == []

    def test_of_a_history_is_a_history_that_is_lost(self, caplog: pytest.LogCaptureFixture) -> None:
        a, b = two()
        a.answer()
        client = shared(a).courier.store.client
        (history,) = client.keys("inferbus:1:history:*")
        client.lset(history, 2, "[]")
        a.ask()
        a.clock.pass_(1)
        assert texts(b.work()) == ["fine"]
        assert len(b.engine.calls[0].messages) == 1
        assert "a history is lost" in caplog.text
