"""Counting tokens with the server's own tokenizer, in bounded time; else estimating."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from typing import Final

from cachetools import LRUCache

from inferbus_worker.engines.remote.connections import Connections
from inferbus_worker.engines.remote.loop import RemoteLoop
from inferbus_worker.engines.remote.parts import estimate
from inferbus_worker.engines.remote.place import RemotePlace
from inferbus_worker.engines.remote.row import Tokenizer, figure
from inferbus_worker.seldom import Once

#: Seconds that one count may take, and that nothing is asked after one that failed.
_PATIENCE: Final = 2.0
_PAUSE: Final = 30.0
_REMEMBERED: Final = 2048
_OK: Final = 200

log = logging.getLogger("inferbus.remote")


class TokenCounter:
    """Counts for any thread but the loop's, which gets an estimate.

    Attributes:
        is_exact: whether the last count was one.
    """

    def __init__(self, place: RemotePlace, loop: RemoteLoop, remarks: Once) -> None:
        self._place = place
        self._remarks = remarks
        self._loop = loop
        self._tokenizer: Tokenizer | None = place.row.tokenizer
        self._connections: Connections | None = None
        self._model = ""
        self._frame = 0
        self._counts: LRUCache[bytes, int] = LRUCache(_REMEMBERED)
        self._lock = threading.Lock()
        self._not_before = 0.0
        self.is_exact = False

    async def begin(self, connections: Connections, model: str) -> None:
        """Try whether the server counts, on the loop; where it does not, all counts are estimates."""
        self._connections, self._model, self._frame, self._not_before = connections, model, 0, 0.0
        if self._tokenizer is None:
            return
        try:
            counted = await self._ask(connections, self._tokenizer, "a")
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no tokenizer
            self._remarks.say(
                logging.INFO,
                "no tokenizer",
                "%s: tokens are estimated, its tokenizer does not answer (%s)",
                *(self._place.name, type(error).__name__),
            )
            self._not_before, self.is_exact = time.monotonic() + _PAUSE, False
            return
        self._frame = counted - 1 if self._tokenizer.has_frame else 0
        self.is_exact = True

    def count(self, text: str) -> int:
        """See `Engine.count_tokens`."""
        connections, tokenizer = self._connections, self._tokenizer
        if not text or connections is None or tokenizer is None:
            return estimate(text) if text else 0
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            known = self._counts.get(key)
        if known is not None:
            return known
        if self._loop.is_own_thread or time.monotonic() < self._not_before:
            return estimate(text)
        try:
            counted = max(0, self._loop.run(self._ask(connections, tokenizer, text), _PATIENCE) - self._frame)
        except Exception as error:  # noqa: BLE001 - whatever it is, an estimate will do
            log.debug("%s: a count of tokens failed (%s)", self._place.name, type(error).__name__)
            self._not_before, self.is_exact = time.monotonic() + _PAUSE, False
            return estimate(text)
        self.is_exact = True
        with self._lock:
            self._counts[key] = counted
        return counted

    async def _ask(self, connections: Connections, tokenizer: Tokenizer, text: str) -> int:
        status, answer = await connections.ask(tokenizer.path, tokenizer.asks(self._model, text))
        counted = figure(tokenizer.read(answer, self._model)) if status == _OK else None
        if counted is None:
            raise ValueError("no count")
        return counted
