"""What an answer waits for, said while it does: the broker, a worker, a limit, the queue."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from inferbus_client.cli.lookout import Lookout
from inferbus_client.client import Client
from inferbus_client.contract.wire import Accepted
from inferbus_client.errors import RequestFailedError
from inferbus_client.exchange.options import AskOptions

#: Seconds without a word before we look who serves here at all, and before we say it.
_LOOK: Final = 0.5
_SAY: Final = 1.0
_REFUSALS: Final = {
    "rate_limited": "rate limited",
    "overloaded": "the worker is overloaded",
    "session_busy": "the session's previous message is still being answered",
    "engine_unavailable": "the model is not available",
    "shutting_down": "the worker is shutting down",
}


class Waiting:
    """One request's wait. Its callbacks are the client's; `words` may be asked from any thread."""

    def __init__(self, client: Client, lookout: Lookout, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._lookout = lookout
        self._clock = clock
        self._since = clock()
        self._accepted: Accepted | None = None
        self._refusal = ""

    def options(self) -> AskOptions:
        """What makes the client tell us."""
        return {"on_accepted": self._was_accepted, "on_retry": self._was_refused}

    def words(self) -> str:
        """What it waits for now, and how long, as far as that is known."""
        seconds = self._clock() - self._since
        if not self._client.is_connected:
            return "no connection to the broker, trying again"
        if seconds < 0:
            return f"{self._refusal}, trying again in {math.ceil(-seconds)} s"
        if self._accepted is not None:
            return _place(self._accepted, seconds)
        if seconds > _LOOK:
            self._lookout.begin()
        told = self._lookout.words() if seconds > _SAY else ""
        return told if told.startswith("no worker") else "waiting for the worker"

    def _was_accepted(self, accepted: Accepted) -> None:
        self._since, self._accepted = self._clock(), accepted

    def _was_refused(self, error: RequestFailedError, delay: float) -> None:
        self._refusal, self._accepted = _REFUSALS.get(error.code, error.code), None
        self._since = self._clock() + delay


def _place(accepted: Accepted, seconds: float) -> str:
    """Where in the queue it is, and what is left of the wait that was told."""
    if accepted.queue_position <= 0:
        return "thinking"
    left = 0 if accepted.eta_ms is None else math.ceil(accepted.eta_ms / 1000 - seconds)
    return f"place {accepted.queue_position} in the queue" + (f", about {left} s" if left > 0 else "")
