"""A request that another worker of a group begins anew, as programs, people and pipes see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from inferbus_client import AsyncClient, Client, Delta, Restarted
from inferbus_client.contract import topics
from inferbus_client.contract.presence import Instance, Presence, State
from inferbus_client.contract.wire import Accepted
from support.batch_files import request, texts, write
from support.fake_worker import Act, FakeWorker, Say, Wait, accepted, begun_anew, delta, done
from support.gateway import GatewayProcess
from support.inferbus import inferbus
from support.mosquitto import Mosquitto, mosquitto_pub
from support.needs import needs_module
from support.terminal import in_terminal
from support.waiting import PATIENCE, until


def in_order(seq: int, say: Say) -> Say:
    return Say({**say.fields, "seq": seq}, say.copies)


def taken_over(first: str, second: str) -> list[Say]:
    """A worker says the first words, and another begins anew; the first is heard once more, and so is the end."""
    words = [delta(word) for word in second.split(" ")]
    late = [in_order(2, delta("late")), in_order(3, done(f"{first} late"))]
    again = list(begun_anew(*words, done(second.replace(" ", ""))))
    return [accepted(), delta(first), again[0], late[0], *again[1:-1], late[1], again[-1], again[-1]]


def announced(worker: str, state: State) -> Presence:
    run = Instance(mark=worker, started=1.0)
    return Presence(worker=worker, state=state, projects=("general",), group="inferbus", instance=run)


def say(broker: Mosquitto, presence: Presence) -> None:
    mosquitto_pub(broker, topics.presence(presence.worker), presence.encode().decode(), "-r")


@pytest.fixture
def worker(own_broker: Mosquitto) -> Iterator[FakeWorker]:
    needs_module("uvicorn")
    say(own_broker, announced("gpu-1", "ready"))
    with FakeWorker(own_broker.port) as worker:
        yield worker


@pytest.fixture
def gateway(own_broker: Mosquitto, worker: FakeWorker) -> Iterator[GatewayProcess]:
    del worker  # which serves
    with GatewayProcess(own_broker) as gateway:
        yield gateway


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    fake_worker.script = lambda _: taken_over("one two", "uno dos tres")
    return ("--broker", broker.url, "--project", fake_worker.project)


def test_a_stream_says_that_it_begins_anew(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: taken_over("one two", "uno dos tres")
    with Client(broker.url, project=fake_worker.project, pacing=0) as client:
        places: list[Accepted] = []
        with client.stream("x", on_accepted=places.append) as stream:
            parts = list(stream)
        answer = stream.result()
        asked = client.ask("x")
    shown = [part.text if isinstance(part, Delta) else part for part in parts]
    assert shown == ["one two", Restarted(1, "gpu-2"), "uno", "dos", "tres"]
    assert [place.worker for place in places] == [None, "gpu-2"]
    assert (answer.text, answer.run, answer.lost, asked.text) == ("unodostres", 1, 0, "unodostres")


def test_an_asynchronous_stream_says_so_too(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: taken_over("one two", "uno dos tres")

    async def main() -> list[str | Restarted]:
        async with AsyncClient(broker.url, project=fake_worker.project, pacing=0) as client:
            return [part.text if isinstance(part, Delta) else part async for part in client.stream("x")]

    assert asyncio.run(main()) == ["one two", Restarted(1, "gpu-2"), "uno", "dos", "tres"]


def test_accepted_may_be_slower_than_the_answer(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    late = Say({**accepted().fields, "seq": 0, "worker": "gpu-1"})
    fake_worker.script = lambda _: [in_order(1, delta("a ")), late, in_order(2, delta("b")), in_order(3, done("a b"))]
    with Client(broker.url, project=fake_worker.project, pacing=0) as client:
        places: list[Accepted] = []
        with client.stream("x", on_accepted=places.append) as stream:
            parts = [part.text for part in stream if isinstance(part, Delta)]
    assert (parts, stream.result().lost, len(places)) == (["a ", "b"], 0, 1)


def test_a_person_sees_which_answer_counts(way: tuple[str, ...]) -> None:
    note = "one two\n(gpu-2 has taken over, and begins anew)\nunodostres\n"
    assert note in in_terminal("ask", *way, "x").text
    assert note in in_terminal("chat", "--plain", *way, "-q", "x").text
    assert "(gpu-2 has taken over, and begins anew)" in in_terminal("chat", *way, "-q", "x").text


def test_a_program_sees_it_in_json(way: tuple[str, ...]) -> None:
    run = inferbus("ask", *way, "--stream", "--json", "x")
    *lines, whole = map(json.loads, run.stdout.splitlines())
    restarted = {"restarted": {"run": 1, "worker": "gpu-2"}}
    assert lines == [{"delta": "one two"}, restarted, {"delta": "uno"}, {"delta": "dos"}, {"delta": "tres"}]
    assert (whole["text"], whole["run"]) == ("unodostres", 1)
    assert json.loads(inferbus("ask", *way, "--json", "x").stdout)["text"] == "unodostres"


@pytest.mark.parametrize("verb", [("ask", "--stream", "x"), ("chat", "-q", "x")], ids=lambda verb: verb[0])
def test_a_pipe_gets_one_answer_or_none(way: tuple[str, ...], fake_worker: FakeWorker, verb: tuple[str, ...]) -> None:
    other = inferbus(*verb, *way)
    assert other.returncode == 1
    assert (other.stdout.strip(), "in other words" in other.stderr) == ("one two", True)
    fake_worker.script = lambda _: taken_over("on", "one two")
    same = inferbus(*verb, *way)
    assert (same.returncode, same.stdout) == (0, "onetwo\n")


def test_a_load_counts_what_began_anew(way: tuple[str, ...]) -> None:
    run = inferbus("stress", *way, "--messages", "2", "--clients", "1", "--json")
    assert run.returncode == 0, run.stderr
    (level,) = json.loads(run.stdout)["levels"]
    assert (level["answered"], level["restarted"], level["duplicated"]) == (2, 2, 4)


def test_a_batch_writes_the_answer_of_the_last_run(way: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "requests", [request("r", "x")])
    run = inferbus("batch", str(tmp_path / "requests"), "-o", str(tmp_path / "answers"), *way)
    assert run.returncode == 0, run.stderr
    assert texts(tmp_path / "answers") == {"r": "unodostres"}


def test_a_gateway_ends_a_stream_that_another_worker_answers_otherwise(
    own_broker: Mosquitto, gateway: GatewayProcess, worker: FakeWorker
) -> None:
    del own_broker
    worker.script = lambda _: taken_over("one two", "uno dos tres")
    with gateway.stream() as stream:
        *pieces, last = stream.events()
    assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == "one two"
    assert last["error"]["code"] == "engine_unavailable"
    assert "in other words" in last["error"]["message"]
    body = {"model": "general", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9, "stream": True}
    events = gateway.post("/v1/messages", body).text
    assert "event: error\n" in events
    assert "message_stop" not in events


def test_a_gateway_goes_on_with_the_same_answer(gateway: GatewayProcess, worker: FakeWorker) -> None:
    worker.script = lambda _: taken_over("on", "one two")
    with gateway.stream() as stream:
        *pieces, end = stream.events()
    assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == "onetwo"
    assert end["choices"][0]["finish_reason"] == "stop"
    assert gateway.ask().json["choices"][0]["message"]["content"] == "onetwo"


def test_a_gateway_waits_for_the_others_of_a_group(
    own_broker: Mosquitto, gateway: GatewayProcess, worker: FakeWorker
) -> None:
    gone = Event()
    shared = announced("gpu-1", "ready"), announced("gpu-2", "ready")
    for presence in shared:
        say(own_broker, presence)

    def script(_request: object) -> Iterator[Act]:
        yield Say({**accepted().fields, "worker": "gpu-1"})
        assert gone.wait(PATIENCE)
        yield Wait(0.3)
        yield from begun_anew(done("at last"))

    worker.script = script
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(gateway.ask)
        until(lambda: len(worker.heard) == 1)
        assert gateway.get("/api/health").json["workers"]["gpu-1"]["group"] == "inferbus"
        say(own_broker, announced("gpu-1", "offline"))
        gone.set()
        assert answer.result(PATIENCE).json["choices"][0]["message"]["content"] == "at last"
