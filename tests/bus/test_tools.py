"""Tools over a real broker: offered, called, answered, kept with the session, run by the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import pytest
from pydantic import Field

from inferbus_client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    OptionTypeError,
    OptionValueError,
    ToolError,
)
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.worker import WorkerProcess

PROJECT: Final = "tools"
PARAMETERS: Final = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL: Final = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}
OTHER: Final = {"type": "function", "function": {"name": "other"}}


def calls(name: str, **arguments: Any) -> str:
    """What makes the simulated engine call a tool."""
    return json.dumps({"name": name, "arguments": arguments})


@pytest.fixture(scope="module")
def worker(broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    file: Path = tmp_path_factory.mktemp("tools") / "worker.yaml"
    file.write_text(f"projects:\n  {PROJECT}: {{tools: true}}\n  {PROJECT}-not: {{}}\nrate_limit: 'off'\n")
    with WorkerProcess(broker, config=file) as worker:
        yield worker


@pytest.fixture
def client(broker: Mosquitto, worker: WorkerProcess) -> Iterator[Client]:
    assert worker.process.poll() is None
    with Client(broker.url, project=PROJECT, pacing=0) as client:
        client.session = client.new_session()
        yield client


def add(a: int, b: Annotated[int, Field(description="the other one")] = 1) -> int:
    """Add two numbers."""
    return a + b


class TestOnTheWire:
    def test_a_call_comes_whole_in_json_whatever_half_was_asked_for(
        self, broker: Mosquitto, worker: WorkerProcess
    ) -> None:
        assert worker.process.poll() is None
        with Listener(broker, f"{PROJECT}/assistant_response/wire") as listener:
            asked = {"message": calls("add", a=1), "tools": [TOOL], "reply": "text"}
            listener.publish(f"{PROJECT}/user_input/wire", json.dumps(asked))
            accepted, done = (json.loads(one.text) for one in listener.wait(2))
        (call,) = done["toolCalls"]
        assert accepted["type"] == "accepted"
        assert (done["finishReason"], done["text"]) == ("tool_calls", "")
        assert (call["type"], call["function"]) == ("function", {"name": "add", "arguments": '{"a": 1}'})

    def test_a_stream_says_it_in_deltas_that_join_to_the_whole(self, broker: Mosquitto, worker: WorkerProcess) -> None:
        assert worker.process.poll() is None
        with Listener(broker, f"{PROJECT}/assistant_response/deltas") as listener:
            asked = {"message": calls("add", a=1), "tools": [TOOL], "stream": True}
            listener.publish(f"{PROJECT}/user_input/deltas", json.dumps(asked))
            _, delta, done = (json.loads(one.text) for one in listener.wait(3))
        (grown,), (call,) = delta["toolCalls"], done["toolCalls"]
        assert (delta["type"], delta["text"], grown.pop("index")) == ("delta", "", 0)
        assert grown == call

    def test_what_has_no_tools_says_nothing_of_calls(self, broker: Mosquitto, worker: WorkerProcess) -> None:
        """An older client never sees the keys."""
        assert worker.process.poll() is None
        with Listener(broker, f"{PROJECT}/assistant_response/plain") as listener:
            listener.publish(f"{PROJECT}/user_input/plain", json.dumps({"message": "hello", "stream": True}))
            assert not any("toolCalls" in one.text for one in listener.wait(3))

    @pytest.mark.parametrize(
        "asked", [{"message": "x", "tools": [TOOL]}, {"toolResults": [{"toolCallId": "a", "content": "b"}]}]
    )
    def test_where_a_project_does_not_allow_them_they_are_refused_by_name(
        self, broker: Mosquitto, worker: WorkerProcess, asked: dict[str, Any]
    ) -> None:
        assert worker.process.poll() is None
        with Listener(broker, f"{PROJECT}-not/assistant_response/x") as listener:
            listener.publish(f"{PROJECT}-not/user_input/x", json.dumps(asked))
            reply = json.loads(listener.wait(1)[0].text)
        assert (reply["code"], reply["message"]) == (
            "invalid_request",
            "Error: Invalid request. tools are not allowed in this project.",
        )


class TestInASession:
    def test_results_come_back_to_the_calls_that_the_session_holds(self, client: Client) -> None:
        (call,) = client.ask(calls("add", a=1), tools=[add]).tool_calls
        answer = client.ask(tool_results={call.id: "it is 2"}, tools=[add])
        assert (answer.text, answer.finish_reason, answer.tool_calls) == ("it is 2", "stop", ())
        # Question, call, result and answer, as messages that are brought along would have it.
        kept = client.ask("end").usage
        with_calls: list[dict[str, Any]] = [
            {"role": "user", "content": calls("add", a=1)},
            {"role": "assistant", "content": "", "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_call_id": call.id, "content": "it is 2"},
            {"role": "assistant", "content": "it is 2"},
            {"role": "user", "content": "end"},
        ]
        assert kept == client.ask(messages=with_calls).usage

    @pytest.mark.parametrize(
        ("results", "words"),
        [
            ({"nobody": "x"}, "a toolCallId is not among the calls"),
            ({"CALL": "x", "nobody": "x"}, "a toolCallId is not among the calls"),
        ],
    )
    def test_results_of_other_calls_are_refused_and_the_call_still_waits(
        self, client: Client, results: dict[str, str], words: str
    ) -> None:
        (call,) = client.ask(calls("add", a=1), tools=[add]).tool_calls
        given = {call.id if name == "CALL" else name: text for name, text in results.items()}
        with pytest.raises(InvalidRequestError, match=words):
            client.ask(tool_results=given)
        assert client.ask(tool_results={call.id: "right"}).text == "right"

    def test_results_that_nobody_waits_for_are_refused(self, client: Client) -> None:
        with pytest.raises(InvalidRequestError, match="no calls of this session wait for results"):
            client.ask(tool_results={"call_1": "x"})
        client.ask("hello")
        with pytest.raises(InvalidRequestError, match="no calls of this session wait for results"):
            client.ask(tool_results={"call_1": "x"})

    def test_a_message_instead_leaves_out_the_turn_that_nobody_finished(self, client: Client) -> None:
        client.ask("one")
        (call,) = client.ask(calls("add", a=1), tools=[add]).tool_calls
        (again,) = client.ask(tool_results={call.id: "2"}, tools=[add], tool_choice="required").tool_calls
        assert client.ask("two").text == "two"
        said = [
            *({"role": "user", "content": "one"}, {"role": "assistant", "content": "one"}),
            *({"role": "user", "content": "two"}, {"role": "assistant", "content": "two"}),
            {"role": "user", "content": "end"},
        ]
        assert client.ask("end").usage == client.ask(messages=said).usage
        with pytest.raises(InvalidRequestError, match="no calls of this session"):
            client.ask(tool_results={again.id: "x"})

    def test_a_reset_forgets_the_calls(self, client: Client) -> None:
        (call,) = client.ask(calls("add", a=1), tools=[add]).tool_calls
        client.reset()
        with pytest.raises(InvalidRequestError, match="no calls of this session"):
            client.ask(tool_results={call.id: "x"})

    def test_an_answer_that_is_cut_calls_nothing(self, client: Client) -> None:
        answer = client.ask(calls("add", a=1), tools=[add], max_tokens=1)
        assert (answer.finish_reason, answer.tool_calls) == ("length", ())
        assert client.ask("next").text == "next"


class TestChoice:
    def test_none_calls_nothing(self, client: Client) -> None:
        answer = client.ask(calls("add", a=1), tools=[add], tool_choice="none")
        assert (answer.text, answer.tool_calls) == (calls("add", a=1), ())

    def test_a_named_tool_is_called_whatever_is_said(self, client: Client) -> None:
        (call,) = client.ask("hello", tools=[TOOL, OTHER], tool_choice="other").tool_calls
        assert (call.function.name, call.function.arguments) == ("other", "{}")

    def test_one_that_is_not_offered_cannot_be_chosen(self, client: Client) -> None:
        with pytest.raises(InvalidRequestError, match="toolChoice: names none of the tools"):
            client.ask("hello", tools=[add], tool_choice="other")

    def test_a_choice_needs_tools(self, client: Client) -> None:
        with pytest.raises(InvalidRequestError, match="toolChoice: needs tools"):
            client.ask("hello", tool_choice="auto")


class TestRunByTheClient:
    def test_they_run_until_there_is_an_answer(self, client: Client) -> None:
        answer = client.ask(calls("add", a=20, b=22), tools=[add], run_tools=True)
        assert (answer.text, answer.finish_reason) == ("42", "stop")

    def test_of_a_whole_conversation_too(self, client: Client) -> None:
        messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": calls("add", a=1)}]
        assert client.ask(messages=messages, tools=[add], run_tools=True).text == "2"

    def test_a_forced_call_is_forced_once(self, client: Client) -> None:
        assert client.ask(calls("add", a=1), tools=[add], tool_choice="required", run_tools=True).text == "2"

    def test_what_is_wrong_with_a_call_is_for_the_model_to_read(self, client: Client) -> None:
        answer = client.ask(calls("add", a="x"), tools=[add], run_tools=True)
        assert answer.text == "Error: a: must be a whole number"

    def test_so_is_a_tools_own_error(self, client: Client) -> None:
        def fails(what: str) -> str:
            raise ToolError(f"there is no {what} today")

        assert client.ask(calls("fails", what="rain"), tools=[fails], run_tools=True).text == (
            "Error: there is no rain today"
        )

    def test_any_other_error_is_the_callers(self, client: Client) -> None:
        def breaks() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            client.ask(calls("breaks"), tools=[breaks], run_tools=True)
        assert client.ask("on").text == "on"

    def test_what_is_no_function_cannot_be_run(self, client: Client) -> None:
        with pytest.raises(OptionTypeError, match="run_tools: tools must be functions"):
            client.ask("hello", tools=[TOOL], run_tools=True)
        with pytest.raises(OptionTypeError, match="run_tools"):
            client.ask("hello", run_tools=True)
        with pytest.raises(OptionValueError, match="max_tool_rounds"):
            client.ask("hello", tools=[add], run_tools=True, max_tool_rounds=0)

    def test_an_asynchronous_tool_is_for_an_async_client(self, broker: Mosquitto, client: Client) -> None:
        async def later(a: int) -> dict[str, int]:
            await asyncio.sleep(0)
            return {"twice": 2 * a}

        with pytest.raises(OptionTypeError, match="later is asynchronous"):
            client.ask(calls("later", a=2), tools=[later], run_tools=True)

        async def ask() -> list[str]:
            async with AsyncClient(broker.url, project=PROJECT, pacing=0) as aio:
                return [
                    (await aio.ask(calls("later", a=2), tools=[later, add], run_tools=True)).text,
                    (await aio.ask(calls("add", a=2), tools=[later, add], run_tools=True)).text,
                ]

        assert asyncio.run(ask()) == ['{"twice":4}', "3"]
