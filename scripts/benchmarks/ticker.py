"""The yardstick of streams: a bare timer loop that publishes the same deltas. `python ticker.py PORT PER_TOKEN TOKENS`.

Whatever is asked of it, it says the words of the message, one every PER_TOKEN seconds: the first by itself, the others
TOKENS at a time, when the last of them is due.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks.mqtt import Connection


class Ticker:
    """All streams on one timer, each in its own phase."""

    def __init__(self, per_token: float, tokens: int) -> None:
        self._per_token = per_token
        self._tokens = tokens
        self._streams: list[tuple[str, list[str]]] = []
        self.connection: Connection

    def asked(self, session: str, payload: bytes) -> None:
        words = json.loads(payload)["message"].split(" ")
        deltas = [words[0], *(" ".join(words[at : at + self._tokens]) for at in range(1, len(words), self._tokens))]
        asyncio.get_running_loop().call_later(self._per_token, self._say, session, deltas, 0, time.monotonic())

    def _say(self, session: str, deltas: list[str], number: int, began: float) -> None:
        kind = "delta" if number < len(deltas) else "done"
        text = deltas[number] if number < len(deltas) else ""
        reply = {"v": 1, "type": kind, "requestId": session, "sessionId": session, "seq": number, "text": text}
        self.connection.publish(f"ticker/assistant_response/{session}", json.dumps(reply).encode())
        if kind == "delta":
            due = began + (1 + (number + 1) * self._tokens) * self._per_token
            left = max(0.0, due - time.monotonic())
            asyncio.get_running_loop().call_later(left, self._say, session, deltas, number + 1, began)


async def main() -> None:
    """Stream until the process is ended."""
    ticker = Ticker(float(sys.argv[2]), int(sys.argv[3]))
    ticker.connection = await Connection.open(int(sys.argv[1]), "ticker/user_input/+", ticker.asked)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
