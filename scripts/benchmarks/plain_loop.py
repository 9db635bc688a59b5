"""The closed loop as a user would write it, with paho: `python -m benchmarks.plain_loop PORT`, in `scripts/`.

For a broker, the echo (`echo.py PORT text`) and a worker (`serve --engine simulated --rate-limit off`) that run
already. The lean loop of `closed_loop` takes less of the machine, so it shows a larger gap between the two; this one
shows what a client of paho's sees.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

_ROUNDS = 5
_PATIENCE = 60.0


class PlainLoop:
    """`sessions` conversations on one paho client, `requests` round trips in all."""

    def __init__(self, port: int, project: str, sessions: int, requests: int) -> None:
        self._project = project
        self._sessions = sessions
        self._left = self._wanted = requests
        self._sent: dict[str, float] = {}
        self._trips: list[float] = []
        self._done = threading.Event()
        self._heard = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._answered
        self._client.on_subscribe = lambda *_: self._heard.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(f"{project}/assistant_response/+")

    def run(self) -> tuple[float, float]:
        """Requests per second, and the median round trip in seconds."""
        self._client.loop_start()
        self._heard.wait(_PATIENCE)
        began = time.perf_counter()
        for number in range(self._sessions):
            self._send(f"plain-{number}")
        if not self._done.wait(_PATIENCE):
            raise TimeoutError(f"{len(self._trips)} of {self._wanted} answers came")
        seconds = time.perf_counter() - began
        self._client.disconnect()
        self._client.loop_stop()
        return len(self._trips) / seconds, statistics.median(self._trips)

    def _send(self, session: str) -> None:
        self._left -= 1
        self._sent[session] = time.perf_counter()
        self._client.publish(f"{self._project}/user_input/{session}", f"message {self._left}")

    def _answered(self, _client: mqtt.Client, _user: object, message: mqtt.MQTTMessage) -> None:
        session = message.topic.rpartition("/")[2]
        self._trips.append(time.perf_counter() - self._sent[session])
        if len(self._trips) == self._wanted:
            self._done.set()
        elif self._left:
            self._send(session)


def main() -> None:
    """Both sides in turns, five times, at 1 and at 64 sessions."""
    port = int(sys.argv[1])
    for sessions, requests in ((1, 2000), (64, 15000)):
        for _ in range(_ROUNDS):
            echo, ours = (PlainLoop(port, project, sessions, requests).run() for project in ("echo-text", "general"))
            more = (ours[1] - echo[1]) * 1000
            print(
                f"{sessions} sessions: echo {echo[0]:,.0f}/s, worker {ours[0]:,.0f}/s, ratio {ours[0] / echo[0]:.2f}, "
                f"median round trip {more:+.3f} ms"
            )


if __name__ == "__main__":
    main()
