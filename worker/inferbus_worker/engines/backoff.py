"""How long to leave alone what has failed, the longer the more often it has."""

from __future__ import annotations

import random
from typing import Final

#: From here on doubling changes nothing that any of the bounds lets through, and a float holds no end of it.
_MOST_DOUBLINGS: Final = 30


def jittered_pause(first: float, doublings: int, longest: float) -> float:
    """Seconds that double, with jitter, so that what fell together does not rise together.

    Args:
        first: the first pause, in seconds.
        doublings: how often it has doubled.
        longest: what it grows to.
    """
    return min(first * 2.0 ** min(doublings, _MOST_DOUBLINGS), longest) * random.uniform(0.5, 1)  # noqa: S311 - no secret
