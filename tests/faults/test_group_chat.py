"""Trial 13 as somebody sees it who talks: whoever has answered last is killed, and the conversation goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

import pytest

from support.inferbus import PROGRAM, environment
from support.mosquitto import Mosquitto
from support.redis_server import RedisServer
from support.sharing import sharing
from support.trials import size
from support.waiting import until

pytestmark = pytest.mark.slow

_WORKERS: Final = 3
_GROUP: Final = "inferbus:1:{inferbus}:"
_SLOW: Final[dict[str, Any]] = {"simulated_first_token": "50ms", "simulated_per_token": "20ms"}


class Chat:
    """`inferbus chat` behind a pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._in, self._out = _opened(process.stdin), _opened(process.stdout)

    def say(self, text: str) -> None:
        self._in.write(f"{text}\n")
        self._in.flush()

    def hear(self) -> str:
        """The next line that says something."""
        return next(line for line in self._out if line.strip()).strip()


def test_the_conversation_goes_on_whoever_is_killed(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """The next question is on its way before the one who is missed comes back."""
    turns, asked, versions = size(3, 10), [], []
    with (
        RedisServer() as store,
        sharing([own_broker] * _WORKERS, [store.url] * _WORKERS, "talk", **_SLOW) as workers,
        store.client() as client,
        chatting(own_broker) as chat,
    ):
        store_client: Any = client
        chat.say("question 0")
        for number in range(turns):
            asked.append(f"question {number}")
            assert chat.hear() == asked[-1]
            [session] = until(lambda: store_client.keys(f"{_GROUP}session:*"))
            versions.append(int(store_client.hget(session, "version")))
            assert versions[-1] == versions[0] + number  # each turn once
            last = store_client.hget(session, "worker").decode().rpartition(".")[0]
            victim = next(worker for worker in workers if worker.id == last)
            victim.kill()
            chat.say(f"question {number + 1}")
            victim.start()
        asked.append(f"question {turns}")
        assert chat.hear() == asked[-1]
        [history] = store_client.keys("inferbus:1:history:*")
        remembered = [message.decode() for message in store_client.lrange(history, 2, -1)]
    expected = [text for text in asked for _ in ("asked", "answered")]
    assert all(f'"{text}"' in message for text, message in zip(expected, remembered, strict=True))
    report(13, f"a conversation of {len(asked)} turns; {turns} times who had answered last was killed")


@contextmanager
def chatting(broker: Mosquitto) -> Iterator[Chat]:
    process = subprocess.Popen(
        [PROGRAM, "chat", "--broker", broker.url, "--project", "talk"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    with process:
        try:
            yield Chat(process)
        finally:
            process.kill()


def _opened(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
