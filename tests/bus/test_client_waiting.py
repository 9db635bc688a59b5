"""What a program can learn while its answer does not come, from either client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from inferbus_client import AsyncClient, Client
from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.errors import RequestFailedError
from support.fake_worker import Act, FakeWorker, accepted, done, error
from support.mosquitto import Mosquitto
from support.waiting import until


def refuses_once(worker: FakeWorker) -> None:
    replies: Iterator[Iterable[Act]] = iter([[error("overloaded", retry_after_ms=100)], [accepted(), done("yes")]])
    worker.script = lambda _: next(replies)


def test_a_refusal_is_told_before_it_is_tried_again(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    told: list[tuple[str, float]] = []

    def on_retry(refusal: RequestFailedError, seconds: float) -> None:
        told.append((refusal.code, seconds))

    async def ask() -> str:
        async with AsyncClient(broker.url, project=fake_worker.project) as client:
            return (await client.ask("x", on_retry=on_retry)).text

    refuses_once(fake_worker)
    with Client(broker.url, project=fake_worker.project) as client:
        assert client.ask("x", on_retry=on_retry).text == "yes"
    refuses_once(fake_worker)
    assert asyncio.run(ask()) == "yes"
    assert [code for code, _ in told] == ["overloaded", "overloaded"]
    assert all(0.1 <= seconds < 2 for _, seconds in told)


def test_the_workers_are_heard_on_the_clients_own_connection(own_broker: Mosquitto) -> None:
    def says(state: str) -> bytes:
        return Presence.model_validate({"worker": "w1", "state": state, "projects": ["p"]}).encode()

    with FakeWorker(own_broker.port, project="p") as worker:
        worker.publish(topics.presence("w1"), says("loading"), retain=True)
        with Client(own_broker.url, project="p") as client:
            until(client.workers)
            worker.publish(topics.presence("w1"), says("ready"), retain=True)
            until(lambda: client.workers()["w1"].state == "ready")
            for junk in (b"junk", b'{"worker": "w1"}', b"x" * 100_000):
                worker.publish(topics.presence("w1"), junk)
            assert client.ask("hello").text == "You said: hello"
            assert client.is_connected
            worker.publish(topics.presence("w1"), b"", retain=True)
            until(lambda: not client.workers())
    assert own_broker.log.count("New client connected") == 2
    assert not client.is_connected
