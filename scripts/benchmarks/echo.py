"""The yardstick: a program that sends every message back, and does no more. `python echo.py PORT DIALECT`.

It runs on our client's network loop, which takes an eighth of the CPU time of paho's own; `processes.echo` takes that
loop from the commit where the yardstick was frozen. JSON is parsed and written with `json` alone: the same JSON, and as
many messages, as the worker writes. A unit test holds this file to its digest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.network_loop import NetworkLoop
from inferbus_client.mqtt.paho_client import PahoClient

_written = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Echo:
    """One connection. The methods but the last are what answers a message, by the dialect's name."""

    def __init__(self) -> None:
        self.client = PahoClient(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

    def text(self, message: Incoming) -> None:
        self._say(message.topic.replace("user_input", "assistant_response"), message.payload)

    def oldest(self, message: Incoming) -> None:
        asked = json.loads(message.payload)
        self._say(asked["replyTopic"], asked["message"].encode())

    def client_half(self, message: Incoming) -> None:
        asked = json.loads(message.payload)
        topic, text = asked["replyTopic"], asked["message"]
        head = {"v": 1, "requestId": asked["requestId"], "sessionId": asked["sessionId"]}
        accepted = {**head, "seq": 0, "type": "accepted", "queuePosition": 0, "etaMs": 0}
        self._say(topic, _written(accepted).encode())
        done = {
            **head,
            "seq": 1,
            "type": "done",
            "text": text,
            "finishReason": "stop",
            "usage": {"promptTokens": len(text) // 4 + 1, "completionTokens": len(text.split())},
            "timing": {"queueMs": 0.125, "firstTokenMs": None, "totalMs": 0.25},
            "model": "simulated",
        }
        self._say(topic, _written(done).encode())

    def _say(self, topic: str, payload: bytes) -> None:
        self.client.publish_plain(topic, payload, None)


def main() -> None:
    """Echo until the process is ended."""
    port, dialect = int(sys.argv[1]), sys.argv[2]
    echo = Echo()
    answer: Callable[[Incoming], None] = getattr(echo, dialect)

    def on_connect(*_: Any) -> None:
        echo.client.subscribe(f"echo-{dialect}/user_input/+", 1)
        print("ready", flush=True)

    echo.client.on_connect = on_connect
    echo.client.on_arrival = answer
    echo.client.connect("127.0.0.1", port)
    NetworkLoop().run(echo.client, lambda: False, serving=lambda: True)


if __name__ == "__main__":
    main()
