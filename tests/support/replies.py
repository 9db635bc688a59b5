"""All that a worker said to each request of one project, as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

from support.listener import Listener
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.waiting import PATIENCE, until


class Replies:
    """A context manager for one thread: sends requests in JSON, keeps every reply, and the ledger of all of them."""

    def __init__(self, broker: Mosquitto, project: str, *, echo: bool = True) -> None:
        self._requester = Requester(broker, project, echo=echo)
        self._listener = Listener(broker, f"{project}/assistant_response/#")
        self.ledger = self._requester.ledger
        self._said: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._read = 0

    def __enter__(self) -> Self:
        self._listener.__enter__()
        self._requester.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._requester.__exit__(kind, error, at)
        self._listener.__exit__(kind, error, at)

    def send(self, text: str | None = None, **fields: Any) -> str:
        """See `Requester.send`."""
        return self._requester.send(text, **fields)

    def settle(self, timeout: float = PATIENCE) -> None:
        """See `Requester.settle`. Afterwards all that was said has come on both connections, the ledger's and ours."""
        self._requester.settle(timeout)
        for request in tuple(self.ledger.rows):
            self.end(request)

    def of(self, request: str) -> list[dict[str, Any]]:
        """What was said to a request so far, in its order."""
        for message in self._listener.heard[self._read :]:
            self._read += 1
            reply = json.loads(message.payload)
            self._said[reply["requestId"]].append(reply)
        return list(self._said[request])

    def end(self, request: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """The terminal reply to a request."""
        ends = until(lambda: [one for one in self.of(request) if one["type"] in {"done", "error"}], timeout)
        return ends[0]

    def ask(self, text: str | None = None, timeout: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Send a request; its terminal reply."""
        return self.end(self.send(text, **fields), timeout)

    def streamed(self, request: str) -> str:
        """The deltas of a request's answer, joined."""
        return "".join(one["text"] for one in self.of(request) if one["type"] == "delta")
