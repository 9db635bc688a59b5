"""Connections that were lost: how long to wait before the next one, and what looks like a second client of our id."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from inferbus_client.errors import ConnectionLostError, IdTakenError

#: Seconds before the next connection after the first, second, third … loss of the last half minute.
_DELAYS: Final = (0.25, 0.25, 1.0, 2.0, 4.0, 5.0)
_DELAY_WINDOW: Final = 30.0
_FLAPS: Final = 4
_FLAP_WINDOW: Final = 15.0
#: What the broker says of itself: no packet of ours is the reason, and no other client.
_ITS_OWN_AFFAIR: Final = {
    "Keep alive timeout",
    "Server busy",
    "Server shutting down",
    "Use another server",
    "Server moved",
    "Connection rate exceeded",
    "Maximum connect time",
    "Message rate too high",
    "Quota exceeded",
}
TAKEN_OVER: Final = "Session taken over"
_ABOUT_CLIENTS: Final = {TAKEN_OVER, "Administrative action"}


def may_be_about_a_packet(reason: str) -> bool:
    """Whether the broker may have closed the connection for what it was sent."""
    return reason not in _ITS_OWN_AFFAIR and reason not in _ABOUT_CLIENTS


class Losses:
    """The last few. For the network thread alone.

    Those that nothing explains may be another client's doing: so few of them are borne that each needs no patience.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._explained: deque[float] = deque(maxlen=len(_DELAYS))
        self._unexplained: deque[float] = deque(maxlen=_FLAPS)

    def note(self, reason: str, *, suspicious: bool) -> None:
        """A connection was lost, for the `reason` that the broker gives; `suspicious`: perhaps for a packet of ours."""
        explained = suspicious or reason in _ITS_OWN_AFFAIR
        (self._explained if explained else self._unexplained).append(self._clock())

    @property
    def are_flapping(self) -> bool:
        """Whether they come so fast, with nothing to explain them, that somebody else seems to have our id."""
        return len(self._unexplained) == _FLAPS and self._unexplained[-1] - self._unexplained[0] < _FLAP_WINDOW

    def why_not_again(
        self, reason: str, client_id: str, holds_out: Callable[[bool], bool]
    ) -> ConnectionLostError | None:
        """What keeps us from coming back after a loss that was just noted; None where nothing does.

        Args:
            reason: the broker's.
            client_id: ours.
            holds_out: as `Link` says; asked only where another client seems to have our id.
        """
        taken_over, flapping = reason == TAKEN_OVER, self.are_flapping
        if not taken_over and not flapping:
            return None
        if holds_out(flapping):
            if flapping:
                self.forget()
            return None
        identity = f"the client id {client_id!r}"
        if taken_over:
            return IdTakenError(f"another client uses {identity} on this broker")
        return ConnectionLostError(
            f"the broker drops this connection again and again ({reason}); is {identity} in use twice?"
        )

    @property
    def delay(self) -> float:
        """Seconds to wait before the next connection, at most."""
        recent = sum(self._clock() - at < _DELAY_WINDOW for at in self._explained)
        return _DELAYS[max(recent, 1) - 1]

    def forget(self) -> None:
        """The reason is found, or will pass."""
        self._explained.clear()
        self._unexplained.clear()

    def explain(self) -> None:
        """The broker was away: nobody has taken our place there."""
        self._unexplained.clear()
