"""What the command line asks for."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

_SHORT: Final = 10

#: The suites by their names, what each measures, and minutes of a round on two cores: those measured one by one …
ALONE: Final = {
    "bus": ("requests in three dialects on an engine that costs nothing, beside an echo", 2),
    "curves": ("the same over sessions, sizes, histories and projects", 2),
    "overload": ("what a flood of requests does to those that are accepted", 1),
    "memory": ("the worker's size over a million sessions", 5),
    "startup": ("commands and imports", 1),
    "streams": ("64 to 1,000 streams at once, beside a bare publisher, and 256 on vLLM", 7),
    "gateway": ("the OpenAI-shaped gateway, beside the bus, also on vLLM", 3),
    "fleet": ("state in Redis, and 1 to 8 workers, also on vLLM", 4),
}
#: … and those of one engine, measured together.
ON_ENGINE: Final = {
    "engine": ("a real vLLM: over the bus, in this process, over HTTP", 6),
    "streaming": ("the same, streamed", 5),
}

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        rounds: how often everything is repeated.
        quick: a tenth of the requests; shows that it works, and says nothing about speed.
        levels: concurrent sessions of the engine's suites.
        shape: the shape of a model with random weights for the engine's suites; None: the demo model.
        engine_options: further options of vLLM's, for all sides alike.
    """

    rounds: int
    quick: bool
    levels: tuple[int, ...] = ()
    shape: str | None = None
    engine_options: tuple[str, ...] = ()

    def command(self, *suites: str) -> str:
        """What repeats these suites as they are asked for here."""
        words = [word for suite in suites for word in ("--only", suite)]
        words += ["--rounds", str(self.rounds)]
        if self.quick:
            words.append("--quick")
        if ON_ENGINE.keys() & set(suites):
            words += ["--sessions", ",".join(map(str, self.levels))]
            words += [] if self.shape is None else ["--shape", self.shape]
            words += ["--", *self.engine_options] if self.engine_options else []
        return shlex.join(["scripts/bench", *words])

    def scaled(self, requests: int) -> int:
        return max(10, requests // _SHORT) if self.quick else requests

    def rounds_of(self, suite: str) -> Iterator[int]:
        for number in range(self.rounds):
            self.say(f"{suite}, round {number + 1} of {self.rounds}")
            yield number

    def turned(self, items: Sequence[_Item], number: int) -> list[_Item]:
        """The same items, another one first in every round: none always goes first or last."""
        start = number % len(items)
        return [*items[start:], *items[:start]]

    def say(self, text: str) -> None:
        """Progress, to standard error."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
