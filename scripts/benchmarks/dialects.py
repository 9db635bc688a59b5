"""What a load says to the worker, and how it reads the replies: the two halves of the wire contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import gcd
from typing import Any, Final, Protocol

from inferbus_client.contract.wire import FAILURES

from .outcome import Trip

_OVERLOADED: Final = FAILURES["overloaded"].sentence.encode()


def prompt(number: int) -> str:
    """The questions of the engine's suites; each is asked once in a run, and every run asks the same."""
    return f"My name is Zorvan{number}. What is {number % 10} plus {number // 10 % 10}, and what is my name?"


class Dialect(Protocol):
    """How requests are written and replies read."""

    def request(self, number: int, home: str) -> bytes:
        """What is asked.

        Args:
            number: the request's, in its run.
            home: the topic where its session's replies go by default.
        """
        ...

    def reply(self, trip: Trip, payload: bytes) -> bool:
        """Note on the trip what a reply says; whether it was the last one."""
        ...


class Text:
    """Plain text in, plain text out; what comes back is to be what was sent."""

    def __init__(self, length: int = 0) -> None:
        self._length = length

    def request(self, number: int, home: str) -> bytes:  # noqa: ARG002 - the dialects'
        return self._message(number)

    def reply(self, trip: Trip, payload: bytes) -> bool:
        trip.refused = payload == _OVERLOADED
        trip.wrong = not trip.refused and payload != self._message(trip.number)
        return True

    def _message(self, number: int) -> bytes:
        return f"message {number}".encode().ljust(self._length, b".")


class Oldest(Text):
    """The JSON that the oldest clients send, and plain text back.

    Args:
        name: what request ids begin with; one for each run, or they would be repeats.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def request(self, number: int, home: str) -> bytes:
        fields = {
            "sessionId": home.rpartition("/")[2],
            "message": self._message(number).decode(),
            "replyTopic": home,
            "clientId": "load",
            "requestId": f"{self._name}-{number}",
        }
        return json.dumps(fields).encode()


class Words(Text):
    """Plain text of so many words: the simulated engine takes its time for each."""

    def __init__(self, shortest: int, longest: int) -> None:
        super().__init__()
        self._shortest = shortest
        self._span = longest - shortest + 1
        # A stride that shares no factor with the span visits every length once before it repeats one.
        self._stride = next(step for step in range(self._span // 3 + 1, 2 * self._span) if gcd(step, self._span) == 1)

    def _message(self, number: int) -> bytes:
        return b" ".join([b"%d" % number] * (self._shortest + number * self._stride % self._span))


class _JsonReplies:
    """The JSON half's: `accepted`, deltas where they are asked for, `done`."""

    def reply(self, trip: Trip, payload: bytes) -> bool:
        message = json.loads(payload)
        match message["type"]:
            case "delta":
                trip.delta()
                return False
            case "done":
                trip.tokens = message["usage"]["completionTokens"]
                trip.wrong = not (trip.tokens and self._answers(trip, message))
                return True
            case "error":
                trip.wrong = True
                return True
            case _:
                return False

    def _answers(self, trip: Trip, done: Mapping[str, Any]) -> bool:  # noqa: ARG002 - a dialect's that knows more
        """Whether this is the answer to what was asked."""
        return True


class Json(_JsonReplies):
    """The JSON half, with the questions of the engine's suites.

    Args:
        stream: whether deltas are asked for.
        max_tokens: of every answer.
        name: what request ids begin with; the worker then remembers each request for its retries. Empty: none has one.
    """

    def __init__(self, *, stream: bool, max_tokens: int, name: str = "") -> None:
        self._name = name
        self._rest = {"reply": "json", "stream": stream, "maxTokens": max_tokens, "temperature": 0, "topP": 1}

    def request(self, number: int, home: str) -> bytes:  # noqa: ARG002 - the dialects'
        named = {"requestId": f"{self._name}-{number}"} if self._name else {}
        return json.dumps({"message": prompt(number), **named, **self._rest}).encode()


class OurClient(_JsonReplies):
    """The JSON half with all that our own client says, which listens a level below its session's topic.

    Args:
        name: what request ids begin with; one for each run, or they would be repeats.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def request(self, number: int, home: str) -> bytes:
        fields = {
            "sessionId": home.rpartition("/")[2],
            "requestId": f"{self._name}-{number}",
            "clientId": "load",
            "replyTopic": f"{home}/load",
            "reply": "json",
            "message": f"message {number}",
            "deadlineMs": 60_000,
        }
        return json.dumps(fields).encode()

    def _answers(self, trip: Trip, done: Mapping[str, Any]) -> bool:
        asked = f"{self._name}-{trip.number}", f"message {trip.number}"
        return (done.get("requestId"), done.get("text")) == asked


class UntilAccepted:
    """Requests that are not waited for: `accepted` ends the trip."""

    def request(self, number: int, home: str) -> bytes:  # noqa: ARG002 - the dialects'
        return json.dumps({"message": f"message {number}".ljust(100, "."), "reply": "json"}).encode()

    def reply(self, trip: Trip, payload: bytes) -> bool:
        trip.wrong = json.loads(payload)["type"] != "accepted"
        return True
