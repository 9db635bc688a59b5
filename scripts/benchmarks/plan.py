"""What the command line asks for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

_SHORT: Final = 10

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
