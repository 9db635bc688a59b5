"""When the requests of an open loop are due."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat
from random import Random
from typing import Final

#: More is an even interval, within a millionth; and far beyond it the generator would draw for ever.
_EVEN: Final = 1e12


def arrivals(rate: float, *, burstiness: float = 1.0, ramp_up: float = 0.0, random: Random) -> Iterator[float]:
    """Seconds from the start, without end.

    The gaps are gamma-distributed with shape `burstiness`, as in `vllm bench serve`: 1 is a Poisson process, less
    comes in bursts, more comes evenly (infinity: at a fixed interval).

    Args:
        rate: requests per second; infinity: every one of them at once.
        burstiness: the shape of the gaps' distribution.
        ramp_up: seconds during which the rate grows from nothing to `rate`.
        random: where the randomness comes from.
    """
    if math.isinf(rate):
        yield from repeat(0.0)
    expected = 0.0
    while True:
        expected += 1.0 if burstiness > _EVEN else random.gammavariate(burstiness, 1.0 / burstiness)
        yield _when(expected, rate, ramp_up)


def _when(expected: float, rate: float, ramp_up: float) -> float:
    """When so many requests are expected to have come: the inverse of the rate's integral."""
    during_ramp = rate * ramp_up / 2
    if expected < during_ramp:
        return math.sqrt(2 * expected * ramp_up / rate)
    return ramp_up + (expected - during_ramp) / rate
