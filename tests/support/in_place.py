"""A group's store for rooms in which no thread runs: a real one, asked in place, whose time is that of a test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import redis

from inferbus_worker.state.errors import StoreAwayError, StoreError
from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.courier import TIMEOUT, Courier
from inferbus_worker.state.redis.scripts import sources

T = TypeVar("T")

#: Behind a group's prefix: where its clock stands.
_CLOCK: Final = "clock"
#: Takes the place of the prelude that asks the server for the time.
_STANDING: Final = f"local function now() return tonumber(redis.call('GET', KEYS[1] .. '{_CLOCK}')) end"
#: Moves a group's clock, and with it what expires by the server's own.
_MOVE: Final = """
local passed = ARGV[1] - (redis.call('GET', KEYS[1]) or ARGV[1])
redis.call('SET', KEYS[1], ARGV[1])
for number = 2, 3 do
  for _, key in ipairs(redis.call('KEYS', ARGV[number])) do
    local left = redis.call('PTTL', key)
    if left > passed then
      redis.call('PEXPIRE', key, left - passed)
    elseif left >= 0 then
      redis.call('DEL', key)
    end
  end
end
"""
#: What the store's clock says when a test's says 0; as long as a real one.
_START_MS: Final = 1_700_000_000_000


class StoreInPlace:
    """A store that many tests use one after another, each with groups of its own."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        texts = {**sources(_STANDING), "move": _MOVE}
        self._shas = {name: str(client.script_load(text)) for name, text in texts.items()}
        self._numbers = itertools.count()

    def new_group(self) -> str:
        """The name of one that nobody is in."""
        return f"g{next(self._numbers)}"

    def run(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """In one round trip, as the courier does; what the store answers to each."""
        with self.client.pipeline(transaction=False) as pipeline:
            for call in calls:
                if call.name.isupper():
                    pipeline.execute_command(call.name, *call.keys, *call.args)
                else:
                    pipeline.evalsha(self._shas[call.name], len(call.keys), *call.keys, *call.args)
            answers: list[Any] = pipeline.execute()
        return answers


class CourierInPlace(Courier):
    """Answers in the thread that asks, before it goes on.

    Args:
        store: a real one.
        group: whose.
        clock: the test's.

    Attributes:
        is_away: the store does not answer; what is to be kept is sent when it is back.
        loses_answers: it does what it is asked for, and nobody hears that it did.
        holds: what is posted waits until it no longer does.
        ahead: seconds by which the store's clock has jumped.
    """

    def __init__(self, store: StoreInPlace, group: str, clock: Callable[[], float]) -> None:
        self.on_change = lambda: None
        self.store = store
        self.prefix = f"inferbus:1:{{{group}}}:"
        self._all_histories = f"inferbus:1:history:{{{group}/*"
        self._clock = clock
        self._clock_ms: int | None = None
        self._since = clock()
        self._kept: list[tuple[Call[Any], Callable[[Any], None] | None]] = []
        self.is_away = self.loses_answers = self.holds = False
        self.ahead = 0.0
        #: The names of all that was asked or posted.
        self.asked: list[str] = []

    @property
    def here_since(self) -> float | None:
        return None if self.is_away else self._since

    @property
    def is_here(self) -> bool:
        return not self.is_away

    @property
    def reason(self) -> str | None:
        return "the store is away" if self.is_away else None

    def start(self) -> None: ...

    def stop(self, timeout: float) -> None: ...

    def ask_all(self, calls: Sequence[Call[Any]], timeout: float = TIMEOUT) -> list[Any]:  # noqa: ARG002 - at once
        if self.is_away:
            raise StoreAwayError("the store is away")
        answers = self._run(calls)
        if self.loses_answers:
            raise StoreAwayError("the answer was lost")
        return [call.read(answer) for call, answer in zip(calls, answers, strict=True)]

    def post(
        self,
        call: Call[T],
        then: Callable[[T], None] | None = None,
        failed: Callable[[StoreError], None] | None = None,  # noqa: ARG002 - what is kept is sent in the end
        *,
        keeps: bool = False,
    ) -> None:
        if self.loses_answers and not self.is_away:
            self._run([call])
        is_sent = not (self.holds or self.is_away or self.loses_answers)
        if not is_sent and (keeps or self.holds):
            self._kept.append((call, then))
        if not is_sent:
            return
        (answer,) = self._run([call])
        if then is not None:
            then(call.read(answer))

    def comes_back(self) -> None:
        """The store answers again, and what waited for it is sent."""
        self._since = self._clock()
        self.is_away = self.loses_answers = self.holds = False
        waiting, self._kept = self._kept, []
        for call, then in waiting:
            self.post(call, then)

    def names(self, beginning: str) -> list[str]:
        """The group's keys that begin like this, without its prefix."""
        self._move_clock()
        found: Any = self.store.client.keys(f"{self.prefix}{beginning}*")
        return [key.decode().removeprefix(self.prefix) for key in found]

    def _run(self, calls: Sequence[Call[Any]]) -> list[Any]:
        self._move_clock()
        self.asked += [call.name for call in calls]
        return self.store.run(calls)

    def _move_clock(self) -> None:
        now_ms = _START_MS + round((self._clock() + self.ahead) * 1000)
        if now_ms != self._clock_ms:
            patterns = (f"{self.prefix}*", self._all_histories)
            self.store.run([Call("move", (self.prefix + _CLOCK,), (now_ms, *patterns), lambda answer: answer)])
            self._clock_ms = now_ms
