"""The yardstick: what a plain paho script does that sends every message back. `python echo.py PORT`."""

from __future__ import annotations

import sys
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


def main() -> None:
    """Echo until the process is ended."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

    def on_connect(*_: Any) -> None:
        client.subscribe("echo/user_input/+", 1)
        print("ready", flush=True)

    def on_message(_client: mqtt.Client, _user: Any, message: mqtt.MQTTMessage) -> None:
        client.publish(message.topic.replace("user_input", "assistant_response"), message.payload)

    client.on_connect = on_connect
    client.on_message = on_message
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_forever()


if __name__ == "__main__":
    main()
