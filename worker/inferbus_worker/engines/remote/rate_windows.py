"""What is left of a cloud's rate-limit windows, as its answers' headers tell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

#: The headers of OpenAI's and of Anthropic's API: what is left of a window, and its size.
_WINDOWS: Final = tuple(
    (f"x-ratelimit-remaining-{kind}", f"x-ratelimit-limit-{kind}") for kind in ("requests", "tokens")
) + tuple(
    (f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-limit")
    for kind in ("requests", "tokens", "input-tokens", "output-tokens")
)
#: Seconds that a figure holds: the windows are a minute's.
_HOLDS: Final = 60.0


class RateWindows:
    """Written by the loop's thread, read by any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: tuple[float, float] | None = None

    def tell(self, headers: Mapping[str, str]) -> None:
        """Take what an answer says; one that says nothing changes nothing."""
        shares = [
            share for left, limit in _WINDOWS if (share := _share(headers.get(left), headers.get(limit))) is not None
        ]
        if shares:
            self._told = (min(shares), self._clock() + _HOLDS)

    @property
    def headroom(self) -> float | None:
        """See `Engine.headroom`."""
        told = self._told
        return told[0] if told is not None and self._clock() < told[1] else None


def _share(left: str | None, limit: str | None) -> float | None:
    try:
        share = float(left or "") / float(limit or "")
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return min(1.0, max(0.0, share)) if math.isfinite(share) else None
