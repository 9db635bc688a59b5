"""Which model is to answer: in the library, in every verb that asks, and in a chat."""

from __future__ import annotations

import asyncio
import json

import pytest

from inferbus_client import AsyncClient, Client, InvalidRequestError
from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from support.fake_worker import FakeWorker, accepted, done
from support.inferbus import inferbus
from support.mosquitto import Mosquitto

MODEL = "organisation/phi-3:3.8b"


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    return ("--broker", broker.url, "--project", fake_worker.project)


def test_the_library_names_it_and_says_which_one_answered(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    with Client(broker.url, project=fake_worker.project, pacing=0) as client:
        assert client.ask("hello", model=MODEL).model == MODEL
        assert client.ask("hello").model is None
        with client.stream(messages=[{"role": "user", "content": "hello"}], model=MODEL) as stream:
            fake_worker.script = lambda _: [accepted(), done("instead", model="a-fallback")]
            list(stream)
        assert stream.result().model == "a-fallback"
        with pytest.raises(InvalidRequestError, match="model: must match"):
            client.ask("hello", model="no model")
    assert [heard.get("model") for heard in fake_worker.heard] == [MODEL, None, MODEL]


def test_so_does_the_one_for_event_loops(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    async def ask() -> tuple[str | None, str | None]:
        async with AsyncClient(broker.url, project=fake_worker.project, pacing=0) as client:
            stream = client.stream("hello", model=MODEL)
            async for _delta in stream:
                pass
            return (await client.ask("hello", model=MODEL)).model, stream.result().model

    assert asyncio.run(ask()) == (MODEL, MODEL)


def test_every_verb_that_asks_names_it(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    asked = inferbus("ask", *way, "--json", "--model", MODEL, "x")
    assert json.loads(asked.stdout)["model"] == MODEL
    inferbus("chat", *way, "--model", MODEL, "-q", "x")
    inferbus("stress", *way, "--model", MODEL, "--clients", "1", "--messages", "1", "--num-warmups", "0")
    assert [heard["model"] for heard in fake_worker.heard] == [MODEL] * 3


@pytest.mark.parametrize("verb", [("ask", "x"), ("chat", "-q", "x"), ("stress",)], ids=lambda verb: verb[0])
def test_what_can_be_no_model_is_refused_before_anything_is_sent(verb: tuple[str, ...]) -> None:
    run = inferbus(*verb, "--model", "no model")
    assert run.returncode == 2
    assert "Error: --model: must match [A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}." in run.stderr


def test_a_chat_goes_over_to_another_one_and_back(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    lines = ["one", "/model phi", "two", "/status", "/model no model", "three", "/model -", "four", "/model"]
    run = inferbus("chat", *way, stdin="".join(f"{line}\n" for line in lines))
    assert run.returncode == 0, run.stderr
    assert [heard.get("model") for heard in fake_worker.heard] == [None, "phi", "phi", None]
    assert "Model: phi, from the next message on" in run.stderr
    assert "Not changed. model: must match" in run.stderr
    assert "last answer: by phi, " in run.stderr
    assert "Model: as the project says" in run.stderr


def test_a_chat_says_which_models_there_are(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    models = {"phi": "ready", "qwen": "starting", "\x1b[2Jevil\nforged": "ready"}
    said = Presence(worker="w-models", state="ready", model="phi", projects=(fake_worker.project,), models=models)
    fake_worker.publish(topics.presence("w-models"), said.encode(), retain=True)
    run = inferbus("chat", *way, stdin="/model\n")
    fake_worker.publish(topics.presence("w-models"), b"", retain=True)
    assert r"There are: phi (ready), qwen (starting), \x1b[2Jevil forged (ready)" in run.stderr
