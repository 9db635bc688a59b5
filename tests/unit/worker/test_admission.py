"""Who gets in: the contract's order, every refusal with its sentence, and nothing left behind by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import ChatCall
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.rates import RateLimit
from support.rooms import NOTHING, Chunk, Rooms, answer, fail, replies, texts

pytestmark = pytest.mark.usefixtures("state")

State = Literal["memory", "redis"]

BUSY = "Please wait, your previous message is still being processed..."
LIMITED = "Error: Rate limit exceeded. Please slow down your requests."
OVERLOADED = "Server is overloaded. Please try again in a moment."
HOME = "general/assistant_response/s1"


class TestAdmitted:
    def test_a_text_request_says_nothing_until_its_answer(self) -> None:
        rooms = Rooms()
        assert rooms.ask() == []
        assert texts(rooms.work()) == ["fine"]

    def test_json_says_accepted_first(self, state: State) -> None:
        """In a group it says by whom: perhaps another worker goes on."""
        rooms = Rooms()
        by = {"worker": rooms.settings.worker_id} if state == "redis" else {}
        assert replies(rooms.ask(reply="json", requestId="r1")) == [
            {
                "v": 1,
                "type": "accepted",
                "requestId": "r1",
                "sessionId": "s1",
                "seq": 0,
                "queuePosition": 0,
                "etaMs": 0,
                **by,
            }
        ]

    def test_the_position_counts_who_waits_before(self) -> None:
        rooms = Rooms()
        rooms.ask("a")
        rooms.ask("b")
        (accepted,) = replies(rooms.ask("c", reply="json"))
        assert accepted["queuePosition"] == 2

    def test_a_session_topic_names_the_session(self) -> None:
        rooms = Rooms()
        rooms.receive("general/user_input/s9", "hello")
        (reply,) = rooms.work()
        assert reply.topic == "general/assistant_response/s9"

    def test_a_session_topic_wins_over_the_payload(self) -> None:
        rooms = Rooms()
        rooms.receive("general/user_input/s9", {"message": "hello", "sessionId": "s1"})
        (reply,) = rooms.work()
        assert reply.topic == "general/assistant_response/s9"

    def test_without_a_session_a_fresh_one_is_made(self) -> None:
        rooms = Rooms()
        rooms.receive("general/user_input", "hello")
        (reply,) = rooms.work()
        assert reply.topic.startswith("general/assistant_response/default-")

    def test_projects_do_not_share_sessions(self) -> None:
        rooms = Rooms(projects={"a": ProjectSettings(), "b": ProjectSettings()})
        rooms.receive("a/user_input/s", "one")
        rooms.receive("b/user_input/s", "two")
        assert {reply.topic for reply in rooms.work()} == {"a/assistant_response/s", "b/assistant_response/s"}

    def test_nothing_is_left_behind_by_an_answered_request(self) -> None:
        rooms = Rooms()
        rooms.answer(clientId="c", requestId="r")
        assert rooms.left_behind == NOTHING


class TestRefused:
    @pytest.mark.parametrize(
        ("payload", "sentence"),
        [
            (b'{"sessionId":"s1"}', "Error: Invalid request. message: Field required."),
            (b'{"sessionId":"s1","message":" "}', "Error: Invalid request. The message is blank."),
            (b'{"sessionId":"s1","message":"' + b"x" * 70_000 + b'"}', "Error: Message too large."),
        ],
    )
    def test_what_cannot_be_decoded(self, payload: bytes, sentence: str) -> None:
        rooms = Rooms(rate=RateLimit(1, 60))
        (reply,) = rooms.receive("general/user_input", payload)
        assert (reply.topic, reply.payload.decode()) == (HOME, sentence)
        assert rooms.left_behind == NOTHING
        assert (len(rooms.sessions), rooms.counted) == (0, 0)

    @pytest.mark.parametrize("payload", [b"\xff", b"[" * 10 + b"\xfe", b'{"a":' * 3000, b"   "])
    def test_on_a_session_s_topic_even_garbage_is_answered_there(self, payload: bytes) -> None:
        (reply,) = Rooms().receive("general/user_input/s1", payload)
        assert reply.topic == HOME
        assert reply.payload.startswith(b"Error: Invalid request. ")

    def test_a_huge_payload_is_not_even_read(self) -> None:
        (reply,) = Rooms().receive("general/user_input", b'{"sessionId":"s1","message":"' + b"x" * 2_000_000)
        assert reply.payload == b"Error: Message too large."
        assert reply.topic.startswith("general/assistant_response/default-")

    @pytest.mark.parametrize("payload", [b"", b"x" * 10, b'{"message": "x"}'])
    def test_one_that_was_cut_is_too_large_whatever_is_left_of_it(self, payload: bytes) -> None:
        rooms = Rooms()
        assert texts(rooms.receive("general/user_input/s1", payload, cut=True)) == ["Error: Message too large."]
        assert rooms.left_behind == NOTHING

    @pytest.mark.parametrize("payload", [b"hello", b"", b'{"message":"x"}', b'{"reset":true}'])
    @pytest.mark.parametrize("session", ["bad session", "x" * 129, "$", "+", "", "é", "\ufdd0"])
    def test_a_session_topic_that_is_not_allowed(self, session: str, payload: bytes) -> None:
        rooms = Rooms()
        (reply,) = rooms.receive(f"general/user_input/{session}", payload)
        assert reply.payload.startswith(b"Error: Invalid request. ")
        assert reply.topic.startswith("general/assistant_response/default-")
        assert rooms.left_behind == NOTHING

    @pytest.mark.parametrize("code", ["engine_unavailable", "shutting_down", "overloaded"])
    def test_a_closed_gate(self, code: Any) -> None:
        rooms = Rooms(rate=RateLimit(1, 60))
        rooms.gate = Failure(code)
        assert texts(rooms.ask()) == [Failure(code).sentence]
        assert rooms.left_behind == NOTHING
        assert rooms.counted == 0

    def test_the_rate_limit(self) -> None:
        rooms = Rooms(rate=RateLimit(10, 60))
        for _ in range(10):
            assert texts(rooms.answer()) == ["fine"]
        rooms.clock.pass_(20)
        (reply,) = rooms.answer()
        assert reply.payload.decode() == LIMITED
        assert reply.retry_after_ms == 40_000
        assert rooms.left_behind == NOTHING

    def test_a_client_s_limit(self) -> None:
        rooms = Rooms(client_rate_limit="1/60s")
        assert texts(rooms.answer("a", clientId="c")) == ["fine"]
        rooms.clock.pass_(20)
        (reply,) = rooms.answer("b", clientId="c")
        assert (reply.payload.decode(), reply.retry_after_ms) == (LIMITED, 40_000)
        assert rooms.left_behind == NOTHING
        assert texts(rooms.answer("a", clientId="d")) == ["fine"]

    def test_a_project_s_and_the_total_limit(self) -> None:
        projects = {"a": ProjectSettings.model_validate({"project_rate_limit": "1/60s"}), "b": ProjectSettings()}
        rooms = Rooms(projects=projects, total_rate_limit="2/60s")
        said = []
        for topic in ("a/user_input/1", "a/user_input/2", "b/user_input/1", "b/user_input/2"):
            said += texts([*rooms.receive(topic, "hello"), *rooms.work()])
        assert said == ["fine", LIMITED, "fine", LIMITED]

    def test_an_answer_longer_than_the_cap(self) -> None:
        rooms = Rooms(max_tokens_cap=100)
        (reply,) = rooms.ask(maxTokens=101)
        assert reply.payload == b"Error: Invalid request. maxTokens: at most 100 are allowed in this project."
        assert rooms.left_behind == NOTHING
        assert texts(rooms.answer(maxTokens=100)) == ["fine"]
        assert texts(rooms.answer()) == ["fine"]
        assert [call.sampling.max_tokens for call in rooms.engine.calls] == [100, 100]

    def test_a_project_has_a_cap_of_its_own(self) -> None:
        projects = {"a": ProjectSettings(max_tokens_cap=10), "b": ProjectSettings()}
        rooms = Rooms(projects=projects, max_tokens_cap=100)
        for project, most in (("a", 10), ("b", 100)):
            (reply,) = rooms.receive(f"{project}/user_input/s", {"message": "hello", "maxTokens": most + 1})
            assert f"at most {most} are allowed".encode() in reply.payload
            rooms.receive(f"{project}/user_input/s", {"message": "hello", "maxTokens": most})
            assert texts(rooms.work()) == ["fine"]

    def test_a_busy_session(self) -> None:
        rooms = Rooms()
        rooms.ask()
        assert texts(rooms.ask()) == [BUSY]
        assert rooms.left_behind == {"claims": 1, "in flight": 1, "queued": 1, "retries": 0}
        assert texts(rooms.work()) == ["fine"]

    def test_a_session_whose_request_runs_is_busy_too(self) -> None:
        rooms = Rooms()
        rooms.ask()
        job = rooms.take()
        assert texts(rooms.ask()) == [BUSY]
        rooms.turns.run(job)
        assert texts(rooms.sent()) == ["fine"]
        assert texts(rooms.answer()) == ["fine"]

    def test_a_full_queue(self) -> None:
        rooms = Rooms(queue_size=2)
        rooms.ask("a")
        rooms.ask("b")
        before = rooms.left_behind
        assert texts(rooms.ask("c", clientId="x", requestId="y")) == [OVERLOADED]
        assert rooms.left_behind == before
        rooms.work()
        assert texts(rooms.answer("c", clientId="x", requestId="y")) == ["fine"]

    def test_a_deadline_that_cannot_be_met(self) -> None:
        rooms = Rooms()

        def ten_seconds(_call: ChatCall) -> Iterator[Chunk]:
            rooms.clock.pass_(10)
            yield Chunk("slow", finish_reason="stop", usage=Usage(1, 1))

        rooms.engine.script = ten_seconds
        rooms.answer("slow")
        rooms.pool.active = 1
        (reply,) = replies(rooms.ask(deadlineMs=5000, reply="json"))
        assert (reply["type"], reply["code"]) == ("error", "deadline_exceeded")
        assert "cannot be met" in reply["message"]
        assert rooms.left_behind == NOTHING

    def test_a_response_format_where_the_project_allows_none(self) -> None:
        fields: dict[str, Any] = {"params": {"response_format": {"type": "json_object"}}}
        assert b"response_format is not allowed" in Rooms().ask(**fields)[0].payload
        allowed = Rooms(projects={"general": ProjectSettings(response_format=True)})
        assert texts(allowed.answer(**fields)) == ["fine"]

    def test_a_refusal_in_json_is_an_error_that_says_what_to_do(self) -> None:
        rooms = Rooms(rate=RateLimit(1, 60))
        rooms.answer()
        (reply,) = rooms.ask(reply="json", requestId="r1")
        assert replies([reply]) == [
            {
                "v": 1,
                "type": "error",
                "requestId": "r1",
                "sessionId": "s1",
                "seq": 0,
                "code": "rate_limited",
                "status": 429,
                "message": LIMITED,
                "retryable": True,
                "retryAfterMs": 60_000,
            }
        ]
        assert (reply.status, reply.terminal) == ("rate_limited", True)

    def test_refusals_are_counted_by_code(self) -> None:
        rooms = Rooms()
        rooms.ask()
        rooms.ask()
        rooms.ask(message="")
        stats = rooms.meter.reading("w", queued=0, queue_size=1, sessions=0, levels={}, replies_dropped=0)
        assert stats.rejected == {"session_busy": 1, "invalid_request": 1}


class TestOrder:
    """decode, known duplicate, rate limit, claim the session, room in the queue."""

    def test_decode_comes_before_the_rate_limit(self) -> None:
        rooms = Rooms(rate=RateLimit(1, 60))
        rooms.answer()
        assert texts(rooms.ask(message=""))[0].startswith("Error: Invalid request.")

    def test_what_is_not_well_formed_does_not_count(self) -> None:
        rooms = Rooms(rate=RateLimit(1, 60))
        for _ in range(5):
            rooms.ask(message="")
        assert texts(rooms.answer()) == ["fine"]

    def test_a_duplicate_comes_before_the_claim(self) -> None:
        """Its answer is known, whatever the session does now."""
        rooms = Rooms(rate=RateLimit(3, 60))
        ids = {"clientId": "c", "requestId": "r"}
        rooms.answer(**ids)
        rooms.ask()
        assert texts(rooms.ask(**ids)) == ["fine"]
        assert texts(rooms.ask(**ids)) == [LIMITED]

    def test_the_rate_limit_comes_before_the_claim(self) -> None:
        rooms = Rooms(rate=RateLimit(1, 60))
        rooms.ask()
        assert texts(rooms.ask()) == [LIMITED]

    def test_hammering_a_busy_session_is_limited_too(self) -> None:
        rooms = Rooms(rate=RateLimit(3, 60))
        assert [texts(rooms.ask()) for _ in range(4)] == [[], [BUSY], [BUSY], [LIMITED]]

    def test_a_refusal_for_want_of_room_counts_too(self) -> None:
        rooms = Rooms(rate=RateLimit(2, 60), queue_size=1)
        rooms.ask("other")
        assert [texts(rooms.ask()) for _ in range(3)] == [[OVERLOADED], [OVERLOADED], [LIMITED]]

    def test_the_claim_comes_before_the_room(self) -> None:
        rooms = Rooms(queue_size=1)
        rooms.ask()
        assert texts(rooms.ask()) == [BUSY]
        assert texts(rooms.ask("other")) == [OVERLOADED]


class TestReset:
    def test_an_empty_message_on_the_session_s_topic(self, state: State) -> None:
        rooms = Rooms()
        rooms.answer(systemPrompt="Be brief.")
        (reply,) = rooms.receive("general/user_input/s1", b"")
        assert (reply.topic, reply.payload) == (HOME, b"Conversation reset.")
        assert (rooms.history_bytes, rooms.left_behind) == (0, NOTHING)
        # The store keeps its version: what is still on its way to the history comes too late.
        assert len(rooms.sessions) == (1 if state == "redis" else 0)
        rooms.answer()
        assert [message["content"] for message in rooms.engine.calls[-1].messages] == ["hello"]

    def test_a_reset_in_json(self) -> None:
        rooms = Rooms()
        rooms.answer()
        said = replies(
            rooms.receive("general/user_input", {"sessionId": "s1", "reset": True, "reply": "json", "requestId": "r"})
        )
        assert [(reply["type"], reply["requestId"], reply["seq"]) for reply in said] == [("done", "r", 0)]
        assert rooms.history_bytes == 0

    def test_of_a_session_that_nobody_knows_is_none_the_less_done(self) -> None:
        rooms = Rooms()
        for _ in range(2):
            assert texts(rooms.receive("general/user_input/s1", b"")) == ["Conversation reset."]
        assert (len(rooms.sessions), rooms.left_behind) == (0, NOTHING)

    def test_a_reset_while_a_request_runs_is_refused(self) -> None:
        rooms = Rooms()
        rooms.answer(message="first")
        rooms.ask()
        assert texts(rooms.receive("general/user_input/s1", b"")) == [BUSY]
        rooms.work()
        assert [message["content"] for message in rooms.engine.calls[-1].messages] == ["first", "fine", "hello"]

    def test_an_empty_message_without_a_session_resets_nothing(self) -> None:
        assert texts(Rooms().receive("general/user_input", b""))[0].startswith("Error: Invalid request.")


class TestRetries:
    IDS: dict[str, Any] = {"clientId": "c", "requestId": "r"}  # noqa: RUF012 - never changed

    def test_while_it_is_in_flight_the_repeat_is_dropped(self) -> None:
        rooms = Rooms()
        rooms.ask(**self.IDS)
        assert rooms.ask(**self.IDS) == []
        assert texts(rooms.work()) == ["fine"]
        assert len(rooms.engine.calls) == 1

    def test_after_its_end_the_reply_is_sent_again(self) -> None:
        rooms = Rooms()
        first = rooms.answer(**self.IDS, reply="json")
        (again,) = rooms.answer(**self.IDS, reply="json")
        assert replies([again])[0] == {**replies(first)[-1], "seq": 0}
        assert len(rooms.engine.calls) == 1

    def test_a_repeat_is_the_same_text_whatever_the_model_has_said(self) -> None:
        """A lone surrogate is no UTF-8, and a NUL is a letter like any other."""
        rooms = Rooms(script=answer("a\x00 ", "\ud800 \U0001f600"))
        first, again = (texts(rooms.answer(**self.IDS))[-1] for _ in range(2))
        assert first == again
        assert len(rooms.engine.calls) == 1
        in_json = {"clientId": "c", "requestId": "j", "reply": "json"}
        said = [replies(rooms.answer(**in_json))[-1]["text"] for _ in range(2)]
        assert said[0] == said[1]

    def test_a_repeat_counts_like_a_request(self) -> None:
        """21,000 copies of a 64 kB answer in 12 s were had from one request that the limit let through."""
        rooms = Rooms(rate=RateLimit(3, 60))
        said = [texts(rooms.answer(**self.IDS)) for _ in range(10)]
        assert said == [["fine"]] * 3 + [[LIMITED]] * 7
        assert rooms.ask()[-1].retry_after_ms == 60_000
        rooms.clock.pass_(60)
        assert texts(rooms.answer(**self.IDS)) == ["fine"]
        assert len(rooms.engine.calls) == 1

    @pytest.mark.parametrize("limit", ["client_rate_limit", "project_rate_limit", "total_rate_limit"])
    def test_a_repeat_counts_in_every_limit_that_it_belongs_to(self, limit: str) -> None:
        settings: dict[str, Any] = {limit: RateLimit(2, 60)}
        rooms = Rooms(**settings)
        said = [texts(rooms.answer(**self.IDS)) for _ in range(3)]
        assert said == [["fine"], ["fine"], [LIMITED]]

    def test_a_repeat_while_it_is_in_flight_counts_in_no_limit(self) -> None:
        """It has no reply of its own, and is what a broker's redelivery looks like."""
        rooms = Rooms(rate=RateLimit(2, 60))
        rooms.ask(**self.IDS)
        assert [rooms.ask(**self.IDS) for _ in range(10)] == [[]] * 10
        rooms.work()
        assert texts(rooms.answer(**self.IDS)) == ["fine"]

    def test_to_where_the_repeat_asks(self) -> None:
        rooms = Rooms()
        rooms.answer(**self.IDS)
        (again,) = rooms.answer(**self.IDS, replyTopic=f"{HOME}/second")
        assert again.topic == f"{HOME}/second"

    def test_what_came_twice_is_in_the_history_once(self) -> None:
        rooms = Rooms()
        for _ in range(3):
            rooms.answer(**self.IDS)
        rooms.answer(message="next")
        assert len(rooms.engine.calls[-1].messages) == 3

    def test_what_failed_for_a_while_runs_again(self) -> None:
        rooms = Rooms()
        rooms.ask(**self.IDS)
        rooms.endings.write(rooms.take(), Failure("shutting_down"))
        assert texts(rooms.sent()) == ["Error: The server is shutting down. Please try again in a moment."]
        assert texts(rooms.answer(**self.IDS)) == ["fine"]

    def test_what_failed_for_good_does_not_run_again(self) -> None:
        rooms = Rooms(script=fail(RuntimeError("broken")))
        rooms.answer(**self.IDS)
        assert texts(rooms.answer(**self.IDS)) == ["Error: The model failed to answer."]
        assert len(rooms.engine.calls) == 1

    def test_a_refused_request_was_not_seen(self) -> None:
        rooms = Rooms()
        rooms.ask()
        assert texts(rooms.ask(**self.IDS)) == [BUSY]
        rooms.work()
        assert texts(rooms.answer(**self.IDS)) == ["fine"]

    @pytest.mark.parametrize("ids", [{"clientId": "c"}, {"requestId": "r"}, {}])
    def test_both_ids_are_needed(self, ids: dict[str, str]) -> None:
        rooms = Rooms()
        rooms.answer(**ids)
        rooms.answer(**ids)
        assert len(rooms.engine.calls) == 2

    def test_another_session_never_gets_the_answer(self) -> None:
        """Whoever guessed a client's and a request's id once got the reply of a stranger's conversation."""
        rooms = Rooms()
        rooms.answer("victim", "my secret", **self.IDS)
        (reply,) = rooms.answer("thief", "x", **self.IDS, reply="json")[1:]
        assert replies([reply])[0]["sessionId"] == "thief"
        assert len(rooms.engine.calls) == 2

    def test_another_project_never_gets_the_answer(self) -> None:
        rooms = Rooms(projects={"a": ProjectSettings(), "b": ProjectSettings()})
        request = {"message": "hello", "sessionId": "s", **self.IDS}
        for project in "ab":
            rooms.receive(f"{project}/user_input", request)
            rooms.work()
        assert len(rooms.engine.calls) == 2

    def test_without_a_session_the_repeat_names_the_one_that_was_made(self) -> None:
        rooms = Rooms()
        request = {"message": "hello", "reply": "json", **self.IDS}
        rooms.receive("general/user_input", request)
        (first,) = replies(rooms.work())
        (again,) = replies(rooms.receive("general/user_input", request))
        assert again["sessionId"] == first["sessionId"]
        assert len(rooms.engine.calls) == 1
