"""One request, from taken to its terminal reply: prompt, history, sampling, and a free session on every path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    ChatCall,
    ContextTooLongError,
    EngineDeadError,
    EngineError,
    GenerationTimeoutError,
    InvalidCallError,
)
from inferbus_worker.settings.projects import ProjectSettings
from support.rooms import NOTHING, Chunk, Rooms, Script, ScriptedEngine, answer, fail, replies, texts

pytestmark = pytest.mark.usefixtures("state")


def prompt(rooms: Rooms) -> list[tuple[str, Any]]:
    """The last call's messages as (role, content)."""
    return [(message["role"], message["content"]) for message in rooms.engine.calls[-1].messages]


class TestPrompt:
    def test_a_first_message_stands_alone(self) -> None:
        rooms = Rooms()
        rooms.answer(message="hello")
        assert prompt(rooms) == [("user", "hello")]

    def test_history_comes_before_it(self) -> None:
        rooms = Rooms()
        rooms.answer(message="one")
        rooms.answer(message="two")
        assert prompt(rooms) == [("user", "one"), ("assistant", "fine"), ("user", "two")]

    def test_sessions_do_not_mix(self) -> None:
        rooms = Rooms()
        rooms.answer("a", "mine")
        rooms.answer("b", "yours")
        assert prompt(rooms) == [("user", "yours")]

    def test_prefix_caches_of_sessions_do_not_mix(self) -> None:
        rooms = Rooms(projects={"p": ProjectSettings(), "q": ProjectSettings()})
        for topic in ("p/user_input/s", "p/user_input/t", "q/user_input/s"):
            rooms.receive(topic, "hello")
            rooms.work()
        assert len({call.cache_salt for call in rooms.engine.calls}) == 3

    def test_content_parts_go_on_as_they_are(self) -> None:
        parts = [{"type": "text", "text": "what is it?"}]
        rooms = Rooms()
        rooms.answer(message=parts)  # type: ignore[arg-type]
        assert prompt(rooms) == [("user", parts)]


class TestSystemPrompt:
    def rooms(self, system_prompt: str | None = "You are terse.") -> Rooms:
        return Rooms(projects={"general": ProjectSettings(system_prompt=system_prompt)})

    def test_the_project_s(self) -> None:
        rooms = self.rooms()
        rooms.answer()
        assert prompt(rooms)[0] == ("system", "You are terse.")

    def test_the_request_s_holds_from_then_on(self) -> None:
        rooms = self.rooms()
        rooms.answer(systemPrompt="You are a pirate.")
        rooms.answer()
        assert prompt(rooms)[0] == ("system", "You are a pirate.")

    def test_in_its_own_session_alone(self) -> None:
        rooms = self.rooms()
        rooms.answer("a", systemPrompt="You are a pirate.")
        rooms.answer("b")
        assert prompt(rooms)[0] == ("system", "You are terse.")

    def test_an_empty_one_is_none_at_all(self) -> None:
        rooms = self.rooms()
        rooms.answer(systemPrompt="")
        assert prompt(rooms) == [("user", "hello")]
        rooms.answer()
        assert prompt(rooms)[0] == ("user", "hello")

    def test_a_failed_turn_does_not_bring_one_in(self) -> None:
        rooms = self.rooms()
        rooms.engine.script = fail(EngineError("broken"))
        rooms.answer(systemPrompt="You are a pirate.")
        rooms.engine.script = answer("fine")
        rooms.answer()
        assert prompt(rooms)[0] == ("system", "You are terse.")

    def test_a_reset_brings_the_project_s_back(self) -> None:
        rooms = self.rooms()
        rooms.answer(systemPrompt="You are a pirate.")
        rooms.receive("general/user_input/s1", b"")
        rooms.answer()
        assert prompt(rooms)[0] == ("system", "You are terse.")


class TestSampling:
    def test_the_defaults(self) -> None:
        rooms = Rooms()
        rooms.answer()
        sampling = rooms.engine.calls[0].sampling
        assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.6, 0.9, 512)

    def test_request_before_project_before_default(self) -> None:
        rooms = Rooms(projects={"general": ProjectSettings(temperature=0.1, top_p=0.2)})
        rooms.answer(topP=0.5)
        sampling = rooms.engine.calls[0].sampling
        assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.1, 0.5, 512)

    def test_an_explicit_zero_is_a_zero(self) -> None:
        rooms = Rooms(projects={"general": ProjectSettings(temperature=1.5)})
        rooms.answer(temperature=0)
        assert rooms.engine.calls[0].sampling.temperature == 0

    def test_in_a_project_too(self) -> None:
        rooms = Rooms(projects={"general": ProjectSettings(temperature=0)})
        rooms.answer()
        assert rooms.engine.calls[0].sampling.temperature == 0

    def test_params_by_their_openai_names(self) -> None:
        rooms = Rooms()
        rooms.answer(params={"seed": 0, "stop": ["x"], "top_k": 5})
        assert rooms.engine.calls[0].sampling.extra == {"seed": 0, "stop": ["x"], "top_k": 5}

    def test_only_streams_ask_for_chunks_in_between(self) -> None:
        rooms = Rooms()
        rooms.answer()
        rooms.answer(stream=True)
        assert [call.stream for call in rooms.engine.calls] == [False, True]


class TestHistory:
    """A token is a word, and every message counts eight more for the template."""

    def rooms(self, **settings: Any) -> Rooms:
        return Rooms(max_tokens=100, **settings)

    def talk(self, rooms: Rooms, turns: int) -> list[int]:
        """How many exchanges of history each turn had."""
        for number in range(turns):
            rooms.answer(message=f"message {number}")
        return [len(call.messages) // 2 for call in rooms.engine.calls]

    def test_it_grows_until_it_is_too_long_and_is_then_cut_in_large_steps(self) -> None:
        # Each exchange counts 2 + 1 + 2 * 8 = 19 tokens: ten fit into 200, and a cut leaves five.
        assert self.talk(self.rooms(max_history_tokens=200), 22) == [*range(11), *range(5, 11), *range(5, 10)]

    def test_the_oldest_go_and_the_rest_stays_a_prefix(self) -> None:
        rooms = self.rooms(max_history_tokens=200)
        self.talk(rooms, 12)
        assert prompt(rooms)[0] == ("user", "message 6")
        assert [content for role, content in prompt(rooms) if role == "user"] == [f"message {n}" for n in range(6, 12)]

    def test_no_history_at_all(self) -> None:
        assert self.talk(self.rooms(max_history_tokens=0), 3) == [0, 0, 0]

    def test_it_leaves_room_for_a_long_question(self) -> None:
        rooms = self.rooms(max_history_tokens=3000)
        self.talk(rooms, 10)
        rooms.answer(message="word " * 850)  # 42 tokens are left for ten exchanges of 19, so one of them stays
        assert [content for _, content in prompt(rooms)[:2]] == ["message 9", "fine"]
        assert len(prompt(rooms)) == 3

    def test_a_failed_turn_costs_no_history(self) -> None:
        """A question too long for it once cut the history even where its turn then failed."""
        rooms = self.rooms(max_history_tokens=3000)
        self.talk(rooms, 10)
        rooms.engine.script = fail(EngineError("broken"))
        rooms.answer(message="word " * 850)
        rooms.engine.script = answer("fine")
        rooms.answer()
        assert len(prompt(rooms)) == 21

    @pytest.mark.parametrize(
        "error",
        [
            EngineError("broken"),
            EngineDeadError("dead"),
            RuntimeError("bug"),
            GenerationTimeoutError(),
            InvalidCallError("no"),
        ],
    )
    def test_only_good_turns_enter_it(self, error: Exception) -> None:
        rooms = self.rooms()
        rooms.answer(message="one")
        rooms.engine.script = fail(error)
        rooms.answer(message="two")
        rooms.engine.script = answer("fine")
        rooms.answer(message="three")
        assert prompt(rooms) == [("user", "one"), ("assistant", "fine"), ("user", "three")]

    def test_where_the_estimate_was_short_the_history_pays(self) -> None:
        rooms = self.rooms()
        self.talk(rooms, 6)

        def at_most_five_messages(call: ChatCall) -> Iterator[Chunk]:
            if len(call.messages) > 5:
                raise ContextTooLongError
            yield from answer("fine")(call)

        rooms.engine.script = at_most_five_messages
        assert texts(rooms.answer()) == ["fine"]
        assert len(prompt(rooms)) == 5
        assert len(rooms.engine.calls) == 6 + 2

    @pytest.mark.parametrize(("stream", "end"), [(True, "context_too_long"), (False, "fine")])
    def test_what_a_server_finds_too_long_after_it_has_begun_is_not_said_twice(
        self,
        stream: bool,  # noqa: FBT001 - drawn
        end: str,
    ) -> None:
        rooms = Rooms()
        rooms.answer("s1", "before")
        rooms.engine.script = lambda call: (fail(ContextTooLongError()) if len(call.messages) > 1 else answer("fine"))(
            call
        )
        *said, last = replies(rooms.answer("s1", "after", reply="json", stream=stream))
        assert last.get("code", last.get("text")) == end
        assert [one["text"] for one in said if one["type"] == "delta"] == (["half"] if stream else [])
        assert rooms.left_behind == NOTHING

    def test_a_message_that_fits_nothing_says_so_and_harms_nothing(self) -> None:
        rooms = self.rooms()
        self.talk(rooms, 3)
        rooms.engine.script = fail(ContextTooLongError())
        assert texts(rooms.answer()) == ["Error: The message does not fit the model's context."]
        rooms.engine.script = answer("fine")
        rooms.answer()
        assert len(prompt(rooms)) == 7


OUTCOMES: list[tuple[Exception, str, str]] = [
    (EngineError("a traceback, a path"), "engine_error", "Error: The model failed to answer."),
    (RuntimeError("a bug"), "engine_error", "Error: The model failed to answer."),
    (ContextTooLongError(), "context_too_long", "Error: The message does not fit the model's context."),
    (CancelledGenerationError(), "cancelled", "Error: Request cancelled."),
    (GenerationTimeoutError(), "deadline_exceeded", "Error: Deadline exceeded."),
    (EngineDeadError("gone"), "engine_unavailable", "Error: The model is not available. Please try again later."),
    (InvalidCallError("No images here."), "invalid_request", "Error: Invalid request. No images here."),
]


class TestCounting:
    """An engine that counts exactly is asked seldom: what a prompt has grown by, it says itself with the answer."""

    class Exact(ScriptedEngine):
        """A token is a word; its template adds five to each message."""

        def __init__(self) -> None:
            super().__init__(self.said, counts_exactly=True)
            self.counted: list[str] = []

        def count_tokens(self, text: str) -> int:
            self.counted.append(text)
            return super().count_tokens(text)

        def prompt(self, call: ChatCall) -> int:
            return sum(super(type(self), self).count_tokens(one["content"]) + 5 for one in call.messages)

        def said(self, call: ChatCall) -> Iterator[Chunk]:
            yield Chunk("fine", finish_reason="stop", usage=Usage(self.prompt(call), 1))

    def rooms(self, **settings: Any) -> tuple[Rooms, Exact]:
        engine = self.Exact()
        return Rooms(models={"scripted": [engine]}, max_tokens=100, **settings), engine

    def test_short_questions_are_not_counted(self) -> None:
        rooms, engine = self.rooms(max_history_tokens=200)
        for number in range(40):
            rooms.answer(message=f"message {number}")
        assert engine.counted == []

    def test_the_history_is_cut_by_what_the_engine_says(self) -> None:
        rooms, engine = self.rooms(max_history_tokens=200)
        for number in range(40):
            rooms.answer(message=f"message {number}")
        # An exchange takes 2 + 1 + 2 * 5 = 13 tokens, and the last answer is taken to have 3 more: 15 fit into 200.
        turns = [len(call.messages) // 2 for call in engine.calls]
        assert turns[:18] == [*range(16), 7, 8]
        assert max(map(engine.prompt, engine.calls)) <= 200 + 7

    def test_a_question_is_counted_where_that_decides_what_of_the_history_stays(self) -> None:
        rooms, engine = self.rooms(max_history_tokens=3000)
        for number in range(10):
            rooms.answer(message=f"message {number}")
        assert engine.counted == []
        rooms.answer(message="word " * 850)
        assert engine.counted == ["word " * 850]
        assert len(engine.calls[-1].messages) < len(engine.calls[-2].messages)

    def test_a_server_that_leaves_out_what_it_had_cached_is_not_believed(self) -> None:
        rooms, engine = self.rooms(max_history_tokens=200)
        engine.script = lambda _call: iter([Chunk("fine", finish_reason="stop", usage=Usage(1, 1))])
        for _ in range(10):
            rooms.answer(message="word " * 80)
        assert max(len(call.messages) // 2 for call in engine.calls) == 200 // (80 + 8 + 9)

    def test_beside_tools_it_is_counted_for_a_template_may_leave_them_out(self) -> None:
        rooms, engine = self.rooms(
            projects={"general": ProjectSettings(tools=True, model="scripted", models=["scripted"])}
        )
        tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
        rooms.answer(message="hello there", tools=[tool])
        assert "hello there" in engine.counted

    def test_one_with_nothing_before_it_is_not(self) -> None:
        rooms, engine = self.rooms()
        rooms.answer(message="word " * 850)
        assert engine.counted == []

    def test_a_system_prompt_is_no_part_of_the_question(self) -> None:
        rooms, engine = self.rooms(
            max_history_tokens=60,
            projects={
                "general": ProjectSettings(system_prompt="be brief " * 30, model="scripted", models=["scripted"])
            },
        )
        for number in range(6):
            rooms.answer(message=f"message {number}")
        assert set(engine.counted) == {"be brief " * 30}
        assert [len(call.messages) // 2 - 1 for call in engine.calls] == [0, 1, 2, 3, 4, 2]


class TestEveryPathEndsOnce:
    @pytest.mark.parametrize(("error", "code", "sentence"), OUTCOMES)
    def test_a_failure_in_the_engine(self, error: Exception, code: str, sentence: str) -> None:
        rooms = Rooms(script=fail(error))
        (reply,) = rooms.answer(clientId="c", requestId="r")
        assert (reply.payload.decode(), reply.status) == (sentence, code)
        assert rooms.left_behind == NOTHING

    @pytest.mark.parametrize(("error", "code", "sentence"), OUTCOMES)
    def test_a_failure_in_json(self, error: Exception, code: str, sentence: str) -> None:
        rooms = Rooms(script=fail(error))
        said = replies(rooms.answer(reply="json"))
        assert [reply["type"] for reply in said] == ["accepted", "error"]
        assert said[-1]["code"] == code
        assert said[-1]["message"].startswith(sentence)

    def test_success(self) -> None:
        rooms = Rooms(script=answer("one ", "two"))
        assert texts(rooms.answer()) == ["one two"]
        assert rooms.left_behind == NOTHING

    def test_an_engine_that_never_finishes_its_answer(self) -> None:
        def script(_call: ChatCall) -> Iterator[Chunk]:
            yield Chunk("half an answer")

        rooms = Rooms(script=script)
        assert texts(rooms.answer()) == ["Error: The model failed to answer."]
        assert rooms.left_behind == NOTHING

    def test_an_engine_that_fails_before_it_begins(self) -> None:
        rooms = Rooms()

        def broken(_call: ChatCall) -> Iterator[Chunk]:
            raise RuntimeError("not even a generation")

        rooms.engine.script = broken
        assert texts(rooms.answer()) == ["Error: The model failed to answer."]
        assert rooms.left_behind == NOTHING

    def test_a_tokenizer_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rooms = Rooms()

        def broken(_text: str) -> int:
            raise ValueError("no such token")

        monkeypatch.setattr(rooms.engine, "count_tokens", broken)
        assert texts(rooms.answer()) == ["Error: The model failed to answer."]
        assert rooms.left_behind == NOTHING

    @pytest.mark.parametrize("code", ["shutting_down", "engine_unavailable", "cancelled"])
    @pytest.mark.parametrize("stage", ["queued", "taken", "generating"])
    def test_an_end_from_outside(self, stage: str, code: Any) -> None:
        """Shutdown, a dead engine and a cancel come from other threads, at any time."""
        rooms = Rooms()
        rooms.engine.script = self.ending(rooms, code) if stage == "generating" else answer("fine")
        rooms.ask(clientId="c", requestId="r")
        assert rooms.next_is_here()
        job = rooms.in_flight.all()[0]
        if stage == "queued":
            assert rooms.queue.remove(job)
            assert job.mark(Failure(code))
            rooms.endings.later(job)
        else:
            assert rooms.take() is job
            if stage == "taken":
                assert job.mark(Failure(code))
            rooms.turns.run(job)
        assert texts(rooms.sent()) == [Failure(code).sentence]
        assert rooms.left_behind == NOTHING
        assert not job.mark(Failure("engine_error"))
        rooms.endings.write(job, Failure("engine_error"))
        assert rooms.sent() == []
        assert len(rooms.sessions) == 0
        assert all(generation.cancelled for generation in rooms.engine.generations)

    def ending(self, rooms: Rooms, code: Any) -> Script:
        def script(_call: ChatCall) -> Iterator[Chunk]:
            yield Chunk("half ")
            rooms.in_flight.all()[0].mark(Failure(code))
            yield Chunk("an answer", finish_reason="stop", usage=Usage(1, 2))

        return script

    def test_nothing_follows_a_terminal_reply(self) -> None:
        rooms = Rooms()
        said: list[dict[str, Any]] = []

        def script(_call: ChatCall) -> Iterator[Chunk]:
            yield Chunk("one ")
            rooms.endings.write(job, Failure("cancelled"))
            said.extend(replies(rooms.sent()))
            hear("two ")
            yield Chunk("three")

        def hear(text: str) -> None:
            assert job.lease is not None
            job.heard(job.lease, text, "")

        rooms.engine.script = script
        said += replies(rooms.ask(stream=True))
        job = rooms.take()
        rooms.turns.run(job)
        hear("four")
        assert rooms.sent() == []
        assert [(reply["type"], reply["seq"]) for reply in said] == [("accepted", 0), ("delta", 1), ("error", 2)]


class TestDeadlines:
    def test_the_engine_hears_of_it(self) -> None:
        rooms = Rooms()
        rooms.answer(deadlineMs=2500)
        assert rooms.engine.generations[0].deadline == 1002.5

    @pytest.mark.parametrize(
        ("payload", "expiry", "seconds"), [(5000, 2, 2), (1000, 30, 1), (None, 7, 7), (4000, None, 4)]
    )
    def test_the_sooner_wins(self, payload: int | None, expiry: int | None, seconds: float) -> None:
        rooms = Rooms()
        request = {"message": "x", "sessionId": "s1"} | ({} if payload is None else {"deadlineMs": payload})
        rooms.receive("general/user_input", request, expiry=expiry)
        assert rooms.take().deadline == 1000 + seconds

    def test_without_one_the_engine_hears_of_none(self) -> None:
        rooms = Rooms()
        rooms.answer()
        assert rooms.engine.generations[0].deadline is None

    def test_one_that_passes_while_generating(self) -> None:
        (*_, error) = replies(Rooms(script=fail(GenerationTimeoutError())).answer(reply="json"))
        assert error["message"] == "Error: Deadline exceeded. It passed while the answer was generated."

    def test_one_that_passed_in_the_queue(self) -> None:
        """Before the engine is asked, also where nobody looked at the queue meanwhile."""
        rooms = Rooms()
        rooms.ask(reply="json", deadlineMs=1000)
        rooms.clock.pass_(1)
        (error,) = replies(rooms.work())
        assert error["message"] == "Error: Deadline exceeded. It passed while the request waited in the queue."
        assert rooms.engine.calls == []
        assert rooms.left_behind == NOTHING


class TestReplies:
    def test_done_says_what_it_cost(self) -> None:
        rooms = Rooms()

        def script(_call: ChatCall) -> Iterator[Chunk]:
            rooms.clock.pass_(0.5)
            yield Chunk("one ")
            rooms.clock.pass_(1)
            yield Chunk("two", finish_reason="length", usage=Usage(7, 2))

        rooms.engine.script = script
        rooms.ask(stream=True, requestId="r1")
        rooms.clock.pass_(2)
        (*_, done) = replies(rooms.work())
        assert done == {
            "v": 1,
            "type": "done",
            "requestId": "r1",
            "sessionId": "s1",
            "seq": 2,
            "text": "one two",
            "finishReason": "length",
            "usage": {"promptTokens": 7, "completionTokens": 2},
            "timing": {"queueMs": 2000, "firstTokenMs": 2500, "totalMs": 3500},
            "model": "scripted",
        }

    def test_deltas_join_to_the_answer(self) -> None:
        words = [f"word{number} " for number in range(50)]
        said = replies(Rooms(script=answer(*words)).answer(stream=True))
        deltas = [reply["text"] for reply in said if reply["type"] == "delta"]
        assert "".join(deltas) == said[-1]["text"] == "".join(words)
        assert [reply["seq"] for reply in said] == list(range(len(said)))

    def test_reasoning_is_apart_from_the_answer(self) -> None:
        def script(_call: ChatCall) -> Iterator[Chunk]:
            yield Chunk(reasoning="hm ")
            yield Chunk("yes", reasoning="well", finish_reason="stop", usage=Usage(1, 3))

        rooms = Rooms(script=script)
        said = replies(rooms.answer(stream=True))
        assert (said[-1]["text"], said[-1]["reasoning"]) == ("yes", "hm well")
        rooms.answer()
        assert ("assistant", "yes") in prompt(rooms)
