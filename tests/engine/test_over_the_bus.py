"""The whole way on a real engine: what the bus answers is what the engine says, and each session is alone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from inferbus_worker.engines.base import ChatCall, Sampling
from inferbus_worker.engines.vllm.engine import VllmEngine
from support.gateway import told
from support.listener import Heard, Listener
from support.mosquitto import Mosquitto
from support.waiting import until
from support.worker import WorkerProcess

PROJECT = "real"
REPLIES = f"{PROJECT}/assistant_response/+"
QUESTIONS = ("Hello", "My name is Zorvek", "What can you do?", "Repeat: the wiring works", "Who wrote Hamlet?")

# Never in the training data, and none a part of another. The tiny model miscopies one made-up name in two hundred or
# so (with this vocabulary, "Zordan"); what is tried here is whose words it sees, so these are names that it can copy.
NAMES = tuple(
    first + last
    for first in ("Zor", "Bel", "Tam", "Kir", "Vel", "Dal", "Gar", "Pel")
    for last in ("vek", "mik", "lor", "tin", "nes", "gor", "wen", "rix")
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Graz", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
THE_WEATHER = {"type": "function", "function": {"name": "weather"}}


# Before the engine, which so starts beside it.
pytestmark = pytest.mark.usefixtures("starting_worker")


@pytest.fixture
def replies(broker: Mosquitto, real_worker: WorkerProcess) -> Iterator[Listener]:  # noqa: ARG001 - it answers
    with Listener(broker, REPLIES) as listener:
        yield listener


def test_greedy_answers_over_the_bus_are_the_engine_s_own(replies: Listener, engine: VllmEngine) -> None:
    for number, question in enumerate(QUESTIONS):
        ask(replies, f"greedy-{number}", question)
        (reply,) = replies.wait(number + 1)[number:]
        assert reply.text == directly(engine, question)


def test_its_metrics_hold_vllms_own(replies: Listener, real_worker: WorkerProcess) -> None:
    ask(replies, "scraped", "Hello")
    replies.wait(1)
    status, figures = told(real_worker.http_port, "/metrics")
    assert status == 200
    generated = re.search(r"^vllm:generation_tokens_total{.*} (.+)$", figures, re.MULTILINE)
    assert generated is not None
    assert float(generated[1]) > 0


def test_sixty_four_conversations_remember_their_own_name_and_no_other(replies: Listener) -> None:
    for name in NAMES:
        ask(replies, f"named-{name}", f"My name is {name}")
    replies.wait(len(NAMES), 60)
    for name in NAMES:
        ask(replies, f"named-{name}", "What is my name?")
    answers = {heard.topic.rpartition("-")[2]: heard.text for heard in replies.wait(2 * len(NAMES), 60)[len(NAMES) :]}
    assert {name for name in NAMES if name not in answers[name]} == set()
    assert {(name, other) for name in NAMES for other in NAMES if other != name and other in answers[name]} == set()


def test_a_conversation_that_is_brought_along_is_all_that_the_model_sees(replies: Listener) -> None:
    ask(replies, "brought", "My name is Kirtin")
    told = replies.wait(1)[0].text
    for number, name in enumerate(("Zorvek", "Belmik"), 2):
        said = [
            ("user", f"My name is {name}"),
            ("assistant", told.replace("Kirtin", name)),
            ("user", "What is my name?"),
        ]
        messages = [{"role": role, "content": content} for role, content in said]
        fields = {"messages": messages, "temperature": 0, "maxTokens": 48}
        replies.publish(f"{PROJECT}/user_input/brought", json.dumps(fields))
        assert name in replies.wait(number)[-1].text
    ask(replies, "brought", "What is my name?")
    assert "Kirtin" in replies.wait(4)[-1].text


def test_deltas_join_to_the_whole_answer(replies: Listener) -> None:
    ask(replies, "streamed", "What can you do?", stream=True)
    until(lambda: ended(replies.heard, 1))
    messages = in_json(replies.heard)
    assert [message["seq"] for message in messages] == list(range(len(messages)))
    assert messages[0]["type"] == "accepted"
    deltas = [message["text"] for message in messages if message["type"] == "delta"]
    assert "".join(deltas) == messages[-1]["text"]
    assert messages[-1]["usage"]["completionTokens"] > len(deltas) > 0


def test_cancelled_requests_end_once_and_leave_the_engine(replies: Listener) -> None:
    sessions = [f"cancelled-{number}" for number in range(64)]
    for session in sessions:
        # No temperature: noise, which is long.
        fields = {"message": "tell me everything", "stream": True, "maxTokens": 1500}
        replies.publish(f"{PROJECT}/user_input/{session}", json.dumps(fields))
    until(lambda: len({m["sessionId"] for m in in_json(replies.heard) if m["type"] != "accepted"}) == len(sessions))
    for session in sessions:
        replies.publish(f"{PROJECT}/cancel/{session}", b"")
    until(lambda: ended(replies.heard, len(sessions)))
    ask(replies, "after", "Hello")
    until(lambda: any(heard.topic.endswith("/after") for heard in replies.heard))
    terminals = [m["sessionId"] for m in in_json(replies.heard) if m["type"] in {"done", "error"}]
    assert sorted(terminals) == sorted(sessions)
    for session in sessions:
        kinds = [m["type"] for m in in_json(replies.heard) if m["sessionId"] == session]
        assert kinds[-1] in {"done", "error"}


def ask(listener: Listener, session: str, message: str, **fields: object) -> None:
    body = {"message": message, "temperature": 0, "maxTokens": 48, **fields}
    listener.publish(f"{PROJECT}/user_input/{session}", json.dumps(body))


def directly(engine: VllmEngine, question: str) -> str:
    call = ChatCall([{"role": "user", "content": question}], Sampling(temperature=0.0, top_p=0.9, max_tokens=48))
    return engine.generate(call).wait(time.monotonic() + 30).text


def in_json(heard: list[Heard]) -> list[dict[str, Any]]:
    return [json.loads(message.text) for message in heard if message.text.startswith("{")]


def ended(heard: list[Heard], count: int) -> bool:
    return sum(message["type"] in {"done", "error"} for message in in_json(heard)) >= count


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_forced_call_comes_over_the_bus_and_its_result_goes_back(
    broker: Mosquitto, real_worker: WorkerProcess, *, stream: bool
) -> None:
    assert real_worker.process.poll() is None
    session = f"tools-{stream}"
    with Listener(broker, f"engine/assistant_response/{session}") as listener:

        def send(**fields: Any) -> list[dict[str, Any]]:
            before = len(listener.heard)
            asked = {"tools": [WEATHER], "temperature": 0, "maxTokens": 48, "stream": stream, **fields}
            listener.publish(f"engine/user_input/{session}", json.dumps(asked))
            until(lambda: any(reply["type"] in {"done", "error"} for reply in in_json(listener.heard[before:])))
            return in_json(listener.heard[before:])

        called = send(message="Is it warm in Graz?", toolChoice=THE_WEATHER)
        (call,) = called[-1]["toolCalls"]
        answered = send(toolResults=[{"toolCallId": call["id"], "content": "It is 20 degrees."}])
    assert (called[-1]["finishReason"], call["function"]["name"]) == ("tool_calls", "weather")
    assert json.loads(call["function"]["arguments"])["city"] in {"Graz", "Rome"}
    assert (answered[-1]["type"], bool(answered[-1]["text"])) == ("done", True)
    parts = [part for reply in called for part in reply.get("toolCalls", ()) if reply["type"] == "delta"]
    joined = "".join(part["function"]["arguments"] for part in parts)
    assert joined == (call["function"]["arguments"] if stream else "")
