"""What the examples run against: a real Mosquitto, also over WebSocket, and a real worker that takes its time."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inferbus_client.contract import topics
from support.inferbus import environment
from support.listener import Heard, Listener
from support.other_brokers import MosquittoOverWebSocket
from support.scripts import ROOT
from support.waiting import until

EXAMPLES: Final = ROOT / "examples"

#: What the worker takes for a word. It echoes, so a message's length is how long its answer takes.
PER_WORD: Final = "50ms"
#: A message that is answered while a test goes on, and whose answer none of them waits for.
LONG: Final = "on and on " * 2000
#: Projects that the worker serves: as many requests as one likes, and one in so many seconds.
OPEN: Final = "general"
LIMITED: Final = "limited"
SETTINGS: Final = f"max_tokens: 6000\nprojects: {{{OPEN}: {{}}, {LIMITED}: {{project_rate_limit: 1/3s}}}}\n"


@dataclass(frozen=True)
class ExampleBus:
    """A broker with a worker that serves `OPEN` and `LIMITED`."""

    broker: MosquittoOverWebSocket

    def environment(self, project: str = OPEN, **more: str) -> dict[str, str]:
        """Where it is, as the examples are told."""
        where = {"INFERBUS_BROKER": f"mqtt://{self.broker.host}:{self.broker.port}", "INFERBUS_PROJECT": project}
        where |= {"MQTT_HOST": self.broker.host, "MQTT_PORT": str(self.broker.port)}
        return environment(**where, **more)

    @contextmanager
    def busy(self, session: str) -> Iterator[None]:
        """Inside the `with` a request is under way in the session, unless somebody cancels it."""
        with Listener(self.broker, topics.assistant_response(OPEN, session)) as listener:
            request = {"message": LONG, "reply": "json", "requestId": uuid.uuid4().hex}
            listener.publish(topics.user_input(OPEN, session), json.dumps(request))
            until(lambda: any(reply["type"] == "accepted" for reply in replies(listener.heard)))
            try:
                yield
            finally:
                listener.publish(topics.cancel(OPEN, session), json.dumps({"requestId": request["requestId"]}))
            until(lambda: any(reply["type"] in {"done", "error"} for reply in replies(listener.heard)))


def replies(heard: list[Heard]) -> list[dict[str, Any]]:
    """Those of them that are in JSON."""
    return [json.loads(message.payload) for message in heard if message.payload.startswith(b"{")]


def copy(name: str, to: Path, packages: Path) -> Path:
    """An example that is a Node package, as it is after `npm install`."""
    there = to / name
    there.mkdir()
    for file in (EXAMPLES / name).iterdir():
        if file.is_file():  # and no `node_modules` of somebody's
            (there / file.name).write_bytes(file.read_bytes())
    (there / "node_modules").symlink_to(packages / "node_modules")
    return there
