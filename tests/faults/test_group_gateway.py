"""Trial 13 as it is seen over HTTP: workers behind a gateway are killed, and whoever asks it finds it slow at most."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from support.gateway import GatewayProcess
from support.mosquitto import Mosquitto
from support.redis_server import RedisServer
from support.sharing import sharing, takeovers
from support.trials import size
from support.waiting import until

pytestmark = pytest.mark.slow

_WORKERS: Final = 3
_PEOPLE: Final = 8
_SLOW: Final[dict[str, Any]] = {"simulated_first_token": "50ms", "simulated_per_token": "50ms"}


def test_each_request_over_http_is_answered_whoever_is_killed(
    own_broker: Mosquitto, report: Callable[..., None]
) -> None:
    """Every other one is streamed: what a second worker begins anew has to go on where the first one stopped."""
    kills, asked, over = size(3, 30), itertools.count(1), threading.Event()
    with (
        RedisServer() as store,
        sharing([own_broker] * _WORKERS, [store.url] * _WORKERS, "general", **_SLOW) as workers,
        GatewayProcess(own_broker) as gateway,
        ThreadPoolExecutor(_PEOPLE) as pool,
    ):

        def ask_on() -> list[tuple[str, str]]:
            said = []
            while not over.is_set():
                number = next(asked)
                question = f"number {number} has some words"
                said.append((question, (streamed if number % 2 else whole)(gateway, question)))
            return said

        people = [pool.submit(ask_on) for _ in range(_PEOPLE)]
        try:
            for _ in range(kills):
                time.sleep(random.uniform(0, 2))  # noqa: S311 - no secret
                victim = random.choice(workers)  # noqa: S311
                victim.kill()
                time.sleep(random.choice((0, 3)))  # noqa: S311 - others have taken over by then, or not yet
                victim.start()
        finally:
            over.set()
        said = [pair for person in people for pair in person.result()]
        answered = sum(answer == question for question, answer in said)
        report(
            13, f"{answered} of {len(said)} answered over HTTP, {kills} kills, {takeovers(workers)} times taken over"
        )
        assert [pair for pair in said if pair[0] != pair[1]] == []
        until(lambda: gateway.get("/api/queue-status").json["activeRequests"] == 0)
        assert "Traceback" not in gateway.log


def whole(gateway: GatewayProcess, question: str) -> str:
    response = gateway.ask(question)
    return response.json["choices"][0]["message"]["content"].strip() if response.status == 200 else response.text


def streamed(gateway: GatewayProcess, question: str) -> str:
    with gateway.stream(question) as stream:
        return "".join(stream.texts()).strip() if stream.status == 200 else str(list(stream.lines()))
