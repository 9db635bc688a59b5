"""Whole conversations over a real broker: stateless, any number at once in a session, bounded, in either reply form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from inferbus_client import AsyncClient, Client, InvalidRequestError, RequestCancelledError
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.streams import text
from support.worker import WorkerProcess

PROJECT: Final = "brought"
SLOW: Final = "brought-slow"
ASKED: Final = {"role": "user", "content": "hello"}
SYSTEM: Final = {"role": "system", "content": "Be brief."}
CALL: Final = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Graz"}'}}
WITH_TOOLS: Final[list[dict[str, Any]]] = [
    SYSTEM,
    ASKED,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "it rains"},
]
#: More than the simulated engine's context holds, in less than a conversation may be long.
TOO_LONG: Final = "word " * 40_000


@pytest.fixture(scope="module")
def worker(broker: Mosquitto) -> Iterator[WorkerProcess]:
    with WorkerProcess(broker, project=PROJECT, rate_limit="2/60s", client_rate_limit="1000/60s") as worker:
        yield worker


@pytest.fixture(scope="module")
def slow_worker(broker: Mosquitto) -> Iterator[WorkerProcess]:
    """An answer of several words takes for ever, unless it is cancelled."""
    options: dict[str, Any] = {"rate_limit": "off", "simulated_per_token": "10m", "drain_timeout": "0s"}
    with WorkerProcess(broker, project=SLOW, **options) as worker:
        yield worker


@pytest.fixture
def listener(broker: Mosquitto, worker: WorkerProcess) -> Iterator[Listener]:
    assert worker.process.poll() is None
    with Listener(broker, f"{PROJECT}/assistant_response/#") as listener:
        yield listener


def bring(listener: Listener, session: str, *messages: dict[str, Any], **fields: Any) -> None:
    payload = json.dumps({"messages": list(messages) or [ASKED], **fields})
    listener.publish(f"{PROJECT}/user_input/{session}", payload)


class TestReplies:
    def test_in_text(self, listener: Listener) -> None:
        bring(listener, "text", *WITH_TOOLS)
        (reply,) = listener.wait(1)
        assert (reply.topic, reply.text) == (f"{PROJECT}/assistant_response/text", "it rains")
        assert dict(reply.properties["UserProperty"])["status"] == "ok"

    def test_in_json(self, listener: Listener) -> None:
        bring(listener, "json", SYSTEM, ASKED, reply="json", requestId="r1")
        accepted, done = [json.loads(each.payload) for each in listener.wait(2)]
        assert (accepted["type"], accepted["requestId"], accepted["sessionId"]) == ("accepted", "r1", "json")
        assert (done["type"], done["text"], done["finishReason"]) == ("done", "hello", "stop")

    def test_more_than_a_session_s_limit_lets_through(self, listener: Listener) -> None:
        for _ in range(5):
            bring(listener, "often")
        assert {each.text for each in listener.wait(5)} == {"hello"}

    def test_longer_than_the_context(self, listener: Listener) -> None:
        bring(listener, "long", ASKED, {"role": "assistant", "content": "hello"}, {**ASKED, "content": TOO_LONG})
        assert listener.wait(1)[0].text == "Error: The message does not fit the model's context."

    def test_larger_than_a_message_and_than_a_conversation(self, listener: Listener) -> None:
        bring(listener, "large", {**ASKED, "content": "x" * 100_000})
        assert listener.wait(1)[0].text == "x" * 100_000
        bring(listener, "large", {**ASKED, "content": "x" * 1_100_000})
        assert listener.wait(2)[1].text == "Error: Message too large."

    def test_beside_a_message(self, listener: Listener) -> None:
        bring(listener, "both", ASKED, message="hello")
        assert listener.wait(1)[0].text == "Error: Invalid request. messages: excludes message."

    def test_a_repeat_has_the_first_one_s_answer(self, listener: Listener) -> None:
        bring(listener, "again", ASKED, clientId="c", requestId="r")
        listener.wait(1)
        bring(listener, "again", {**ASKED, "content": "another"}, clientId="c", requestId="r")
        assert [each.text for each in listener.wait(2)] == ["hello", "hello"]


def test_the_limits_that_hold(broker: Mosquitto, start_worker: Any) -> None:
    start_worker(project="brought-limited", total_rate_limit="1/60s", max_conversation_bytes=1000)
    with Listener(broker, "brought-limited/assistant_response/#") as listener:
        topic = "brought-limited/user_input/s1"
        listener.publish(topic, json.dumps({"messages": [{**ASKED, "content": "x" * 1000}]}))
        assert listener.wait(1)[0].text == "Error: Message too large."
        listener.publish(topic, json.dumps({"messages": [ASKED]}))
        listener.publish(topic, json.dumps({"messages": [ASKED]}))
        said = [each.text for each in listener.wait(3)[1:]]
        assert sorted(said) == ["Error: Rate limit exceeded. Please slow down your requests.", "hello"]


class TestAtOnce:
    def test_a_busy_session_is_not_in_the_way(self, broker: Mosquitto, slow_worker: WorkerProcess) -> None:
        assert slow_worker.process.poll() is None
        with (
            Client(broker.url, project=SLOW, session="busy", timeout=20) as client,
            client.stream("takes for ever") as first,
        ):
            next(first)
            for _ in range(3):
                assert client.ask(messages=[ASKED]).text == "hello"
            assert client.ask("hello", session="other").text == "hello"

    def test_a_cancel_ends_the_one_that_it_names(self, broker: Mosquitto, slow_worker: WorkerProcess) -> None:
        assert slow_worker.process.poll() is None
        endless = [{**ASKED, "content": "takes for ever"}]
        with (
            Client(broker.url, project=SLOW, session="several", timeout=20) as client,
            client.stream(messages=endless) as one,
            client.stream(messages=endless) as two,
        ):
            assert (text(next(one)), text(next(two))) == ("takes ", "takes ")
            one.cancel()
            with pytest.raises(RequestCancelledError):
                next(one)
            assert client.ask(messages=[ASKED]).text == "hello"  # what comes for the other one has had its time
            assert two.reply is None
            client.cancel()
            with pytest.raises(RequestCancelledError):
                next(two)


class TestTheClient:
    def test_is_refused_here_what_is_no_conversation(self, broker: Mosquitto, worker: WorkerProcess) -> None:
        assert worker.process.poll() is None
        with Client(broker.url, project=PROJECT, timeout=20) as client:
            with pytest.raises(InvalidRequestError, match="messages: excludes message"):
                client.ask("hello", messages=[ASKED])
            with pytest.raises(InvalidRequestError, match="message: Field required"):
                client.ask()
            with pytest.raises(InvalidRequestError, match=r"messages\.0\.user\.name: is not known"):
                client.stream(messages=[{**ASKED, "name": "ann"}])

    def test_asks_any_number_at_once_in_one_session(self, broker: Mosquitto, worker: WorkerProcess) -> None:
        assert worker.process.poll() is None

        async def ask() -> list[str]:
            async with AsyncClient(broker.url, project=PROJECT, session="gathered", pacing="2m", timeout=60) as client:
                many = [client.ask(messages=[{**ASKED, "content": f"number {each}"}]) for each in range(20)]
                texts = [answer.text for answer in await asyncio.gather(*many)]
                async with client.stream(messages=[ASKED]) as deltas:
                    texts.append("".join([text(delta) async for delta in deltas]))
                return texts

        assert asyncio.run(ask()) == [*(f"number {each}" for each in range(20)), "hello"]

    def test_neither_finds_nor_leaves_a_history(self, broker: Mosquitto, worker: WorkerProcess) -> None:
        assert worker.process.poll() is None
        with Client(broker.url, project=PROJECT, pacing=0, timeout=20) as client:
            alone = client.ask(messages=[ASKED], session="fresh").usage
            used = {session: [client.ask("hello", session=session).usage] for session in ("with", "without")}
            assert client.ask(messages=[ASKED], session="with").usage == alone
            client.ask(messages=WITH_TOOLS, session="with")
            for session, usages in used.items():
                usages.append(client.ask("hello", session=session).usage)
            assert used["with"] == used["without"]
            assert used["with"][0] != used["with"][1]
