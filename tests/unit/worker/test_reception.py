"""The front desk: which messages are heard at all, session ids on request, cancelling, and where replies may go."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.topics import Address
from inferbus_client.contract.wire import Control, Failure, Request
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.admission.decoding import Decoding
from support.rooms import NOTHING, Chunk, Rooms, replies, texts

pytestmark = pytest.mark.usefixtures("state")

State = Literal["memory", "redis"]

HOME = "general/assistant_response/s1"
CANCELLED = "Error: Request cancelled."


class TestHearing:
    def test_retained_messages_are_dropped(self) -> None:
        rooms = Rooms()
        for topic in ("general/user_input", "general/user_input/s1", "general/session", "general/cancel/s1"):
            assert rooms.receive(topic, "hello", retain=True) == []
        assert rooms.left_behind == NOTHING

    @pytest.mark.parametrize("topic", ["other/user_input", "general/assistant_response/s1", "general/x", "", "$SYS/a"])
    def test_other_topics_are_not_ours(self, topic: str) -> None:
        rooms = Rooms()
        assert rooms.receive(topic, "hello") == []
        assert rooms.left_behind == NOTHING


class TestHolding:
    def test_one_that_cannot_be_handled_keeps_the_others_from_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rooms, decode = Rooms(), Decoding.decode

        def decoded(decoding: Decoding, address: Address, message: Incoming) -> Request | Control:
            if message.payload == b"2":
                raise OSError
            return decode(decoding, address, message)

        monkeypatch.setattr(Decoding, "decode", decoded)
        rooms.reception.hold()
        for number in range(1, 4):
            assert rooms.receive(f"general/user_input/s{number}", str(number), qos=1, ack_id=number) == []
        rooms.reception.release()
        assert [job.request.text for job in (rooms.take(), rooms.take())] == ["1", "3"]

    @pytest.mark.parametrize("allowed", [{"deadlineMs": 5000}, {"expiry": 5}], ids=["in JSON", "in MQTT"])
    def test_a_deadline_counts_from_when_the_request_came(self, allowed: dict[str, int]) -> None:
        rooms, expiry = Rooms(), allowed.get("expiry")
        rooms.reception.hold()
        request = {"message": "hi", "sessionId": "s1", "reply": "json", "deadlineMs": allowed.get("deadlineMs")}
        rooms.receive("general/user_input", request, qos=1, ack_id=1, expiry=expiry)
        rooms.receive("general/user_input", {**request, "sessionId": "s2", "deadlineMs": 60_000}, qos=1, ack_id=2)
        rooms.clock.pass_(30)
        rooms.reception.release()
        assert [reply.get("code") for reply in replies(rooms.sent())] == ["deadline_exceeded", None]
        job = rooms.take()
        assert (job.key.session, job.deadline) == ("s2", rooms.clock.now + 30)

    def test_a_cancel_that_says_too_much_is_not_kept(self) -> None:
        rooms = Rooms()
        rooms.reception.hold()
        for number in range(2000):
            rooms.receive(f"general/cancel/s{number}", b"x" * 100_000)
        assert not rooms.reception._held

    def test_what_is_too_large_in_any_case_is_refused_at_once(self) -> None:
        rooms = Rooms()
        rooms.reception.hold()
        request = {"message": "x" * 70_000, "sessionId": "s1", "reply": "json"}
        (reply,) = replies(rooms.receive("general/user_input", request, qos=1, ack_id=1))
        assert reply["code"] == "message_too_large"

    def test_a_broker_that_keeps_to_no_receive_maximum_fills_no_memory(self) -> None:
        """MQTT 3.1.1 has none."""
        rooms = Rooms()
        rooms.reception.hold()
        rooms.gate = Failure("engine_unavailable")
        heard = []
        for number in range(1, 5000):
            heard += rooms.receive(f"general/user_input/s{number}", "hi", qos=1, ack_id=number)
        assert {reply.status for reply in heard} == {"engine_unavailable"}
        assert len(rooms.reception._held or ()) + len(heard) == 4999
        assert len(heard) > 2000


class TestNewSessions:
    @pytest.mark.parametrize("payload", [b"", b"please", b"{}", b"\xff", b"[]", b"x" * 10_000, b'{"reply": 5}'])
    def test_any_payload_asks_for_one(self, payload: bytes) -> None:
        (reply,) = Rooms().receive("general/session", payload)
        assert reply.topic == "general/session/response"
        assert topics.is_session(reply.payload.decode())

    def test_each_is_another(self) -> None:
        rooms = Rooms()
        assert len({texts(rooms.receive("general/session"))[0] for _ in range(20)}) == 20

    def test_one_that_asks_in_json_is_answered_in_json(self) -> None:
        (reply,) = replies(Rooms().receive("general/session", {"reply": "json", "requestId": "r1"}))
        assert (reply["type"], reply["requestId"], reply["seq"]) == ("done", "r1", 0)
        assert reply["text"] == reply["sessionId"]

    def test_a_response_topic_below_the_usual_one(self) -> None:
        (reply,) = Rooms().receive("general/session", response_topic="general/session/response/mine")
        assert reply.topic == "general/session/response/mine"

    def test_a_response_topic_elsewhere_is_ignored(self) -> None:
        (reply,) = Rooms().receive("general/session", response_topic="general/user_input")
        assert reply.topic == "general/session/response"


class TestCancelling:
    def test_a_queued_request(self) -> None:
        rooms = Rooms()
        rooms.ask()
        assert texts(rooms.receive("general/cancel/s1")) == [CANCELLED]
        assert rooms.left_behind == NOTHING
        assert rooms.work() == []
        assert rooms.engine.calls == []

    def test_a_running_request(self, state: State) -> None:
        """In a group the thread that runs it says so, perhaps of another worker than hears this."""
        rooms = Rooms()
        said: list[Any] = []

        def script(_call: object) -> Any:
            yield Chunk("half ")
            said.extend(rooms.receive("general/cancel/s1"))
            yield Chunk("an answer")

        rooms.engine.script = script
        rooms.ask()
        rooms.turns.run(rooms.take())
        assert texts(said) == ([CANCELLED] if state == "memory" else [])
        assert texts([*said, *rooms.sent()]) == [CANCELLED]
        assert rooms.engine.generations[0].cancelled
        assert rooms.left_behind == NOTHING
        assert len(rooms.sessions) == 0  # half an answer enters no history

    def test_the_session_is_free_at_once(self) -> None:
        rooms = Rooms()
        rooms.ask()
        rooms.take()
        rooms.receive("general/cancel/s1")
        assert texts(rooms.answer()) == ["fine"]

    def test_too_late_changes_nothing(self) -> None:
        rooms = Rooms()
        rooms.answer()
        assert rooms.receive("general/cancel/s1") == []
        rooms.answer(message="next")
        assert len(rooms.engine.calls[-1].messages) == 3

    def test_nobody_s_session(self) -> None:
        assert Rooms().receive("general/cancel/nobody") == []

    @pytest.mark.parametrize("session", ["s2", "S1", "s", "s1 ", "$", "+", "é"])
    def test_other_sessions_go_on(self, session: str) -> None:
        rooms = Rooms()
        rooms.ask()
        assert rooms.receive(f"general/cancel/{session}") == []
        assert texts(rooms.work()) == ["fine"]

    def test_by_request_id(self) -> None:
        rooms = Rooms()
        rooms.ask(requestId="r2")
        assert rooms.receive("general/cancel/s1", {"requestId": "r1"}) == []
        assert texts(rooms.receive("general/cancel/s1", {"requestId": "r2"})) == [CANCELLED]

    @pytest.mark.parametrize(
        "payload",
        [
            b"\xff",
            b'{"requestId": {}}',
            b'{"requestId": "' + b"r" * 5000 + b'"}',
            b'{"requestId": "r1", "x": "\\ud800"}',
        ],
    )
    def test_what_cannot_be_read_cancels_nothing(self, payload: bytes) -> None:
        rooms = Rooms()
        rooms.ask()
        assert rooms.receive("general/cancel/s1", payload) == []
        assert texts(rooms.work()) == ["fine"]

    def test_what_was_cut_cancels_nothing(self) -> None:
        rooms = Rooms()
        rooms.ask()
        assert rooms.receive("general/cancel/s1", b"", cut=True) == []
        assert texts(rooms.work()) == ["fine"]

    def test_a_repeat_is_told_that_it_was_cancelled(self) -> None:
        rooms = Rooms()
        ids = {"clientId": "c", "requestId": "r"}
        rooms.ask(**ids)
        rooms.receive("general/cancel/s1")
        assert texts(rooms.answer(**ids)) == [CANCELLED]
        assert rooms.engine.calls == []


class TestReplyTopics:
    @pytest.mark.parametrize("topic", [HOME, f"{HOME}/r1"])
    def test_at_home(self, topic: str) -> None:
        assert Rooms().answer(replyTopic=topic)[0].topic == topic

    @pytest.mark.parametrize(
        "topic",
        [
            "general/user_input",
            "general/user_input/s1",
            "general/assistant_response/s2",
            "general/assistant_response/s1x",
            "$SYS/broker/load",
            "a/#",
            f"{HOME}/#",
            f"{HOME}/+",
            f"{HOME}/a\x00b",
            f"{HOME}/\uffff",
            f"{HOME}/\U0001ffff",
            f"{HOME}/\U0010fffe",
            f"{HOME}/" + "x" * 70_000,
            "inferbus/workers/w/status",
        ],
    )
    def test_elsewhere_is_ignored(self, topic: str) -> None:
        (reply,) = Rooms().receive("general/user_input/s1", b"", response_topic=topic)
        assert reply.topic == HOME

    def test_in_the_payload_just_as_well(self) -> None:
        assert Rooms().answer(replyTopic="general/user_input")[0].topic == HOME
        assert Rooms().answer(replyTopic=f"{HOME}/\U0001ffff")[0].topic == HOME

    def test_the_response_topic_wins(self) -> None:
        rooms = Rooms()
        request = {"message": "hello", "sessionId": "s1", "replyTopic": f"{HOME}/payload"}
        rooms.receive("general/user_input", request, response_topic=f"{HOME}/property")
        assert rooms.work()[0].topic == f"{HOME}/property"

    def test_the_operator_may_allow_more(self) -> None:
        rooms = Rooms(reply_topics=["devices/+/reply"])
        assert rooms.answer(replyTopic="devices/d1/reply")[0].topic == "devices/d1/reply"
        assert rooms.answer(replyTopic="devices/d1/other")[0].topic == HOME

    def test_refusals_go_there_too(self) -> None:
        rooms = Rooms()
        assert rooms.ask(message="", replyTopic=f"{HOME}/r1")[0].topic == f"{HOME}/r1"

    def test_one_message_in_makes_at_most_one_text_reply(self) -> None:
        rooms = Rooms()
        for topic in ("general/user_input", HOME, "a/#"):
            assert len(rooms.answer(replyTopic=topic)) == 1


class TestCorrelation:
    def test_it_rides_along(self) -> None:
        rooms = Rooms()
        rooms.receive("general/user_input", {"message": "x", "sessionId": "s1"}, correlation_data=b"\x00\xff")
        (reply,) = rooms.work()
        assert reply.address is not None
        assert reply.address.correlation_data == b"\x00\xff"

    def test_a_request_id_is_made_up_where_none_is_given(self) -> None:
        rooms = Rooms()
        first, second = (replies(rooms.answer(reply="json"))[0]["requestId"] for _ in range(2))
        assert first
        assert first != second
