"""Requests that a worker took with it: a client that sees another one come sends them again, under the same ids."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from inferbus_client import AsyncClient, Client
from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.contract.wire import Accepted
from support.fake_worker import Act, FakeWorker, accepted, done
from support.mosquitto import Mosquitto
from support.waiting import until


def forgets_the_first_time(fake_worker: FakeWorker) -> None:
    """Each request is accepted and then forgotten, as by a worker that dies; its repeat is answered."""

    def script(request: Mapping[str, Any]) -> Iterable[Act]:
        times = sum(heard["requestId"] == request["requestId"] for heard in fake_worker.heard)
        return [accepted()] if times == 1 else [accepted(), done(f"again: {request['message']}")]

    fake_worker.script = script


def test_a_request_that_was_accepted_and_forgotten(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    forgets_the_first_time(fake_worker)
    answers: list[str] = []
    taken = threading.Event()
    with Client(broker.url, project=fake_worker.project) as client:
        ask = threading.Thread(
            target=lambda: answers.append(client.ask("hello", on_accepted=lambda _: taken.set()).text)
        )
        ask.start()
        assert taken.wait(60)
        client.repeat()
        ask.join(60)
    assert answers == ["again: hello"]
    assert len({heard["requestId"] for heard in fake_worker.heard}) == 1


def sets(event: asyncio.Event) -> Callable[[Accepted], None]:
    return lambda _accepted: event.set()


def test_every_request_of_an_event_loop(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    forgets_the_first_time(fake_worker)

    async def ask() -> list[str]:
        taken = [asyncio.Event() for _ in range(3)]
        async with AsyncClient(broker.url, project=fake_worker.project) as client:
            asked = [
                asyncio.create_task(client.ask(f"{n}", session=f"s{n}", on_accepted=sets(one)))
                for n, one in enumerate(taken)
            ]
            await asyncio.gather(*(one.wait() for one in taken))
            await client.repeat()
            return [answer.text for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == ["again: 0", "again: 1", "again: 2"]


def test_the_client_for_event_loops_knows_the_workers_too(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    said = Presence(worker="w-async", state="ready", projects=(fake_worker.project,))
    fake_worker.publish(topics.presence("w-async"), said.encode(), retain=True)

    async def look() -> Presence | None:
        async with AsyncClient(broker.url, project=fake_worker.project) as client:
            for _ in range(6000):
                if "w-async" in (found := await client.workers()):
                    return found["w-async"]
                await asyncio.sleep(0.01)
        return None

    try:
        assert asyncio.run(look()) == said
    finally:
        fake_worker.publish(topics.presence("w-async"), b"", retain=True)


def test_with_nothing_under_way_nothing_is_sent(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    with Client(broker.url, project=fake_worker.project) as client:
        client.repeat()
        assert client.ask("hello").text == "You said: hello"
        client.repeat()
    until(lambda: fake_worker.heard)
    assert len(fake_worker.heard) == 1
