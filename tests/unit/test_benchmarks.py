"""The benchmarks' yardsticks, and what a load says: the figures are only as good as these."""

from __future__ import annotations

import hashlib
import json
from typing import Final

import pytest

from benchmarks import echo
from benchmarks.commits import NoSuchCommitError, exported
from benchmarks.dialects import Dialect, Oldest, OurClient, Text
from benchmarks.outcome import Trip
from inferbus_client.mqtt.message import Incoming
from support.scripts import ROOT

_HOME: Final = "general/assistant_response/s1"
#: Who changes the yardstick takes every figure beside it anew.
_FROZEN: Final = "990c5b565951560b3690b6812aeefa860c764587f206065d3c7feaa58afed262"  # sha256


def test_the_echo_is_the_one_that_the_figures_were_taken_beside() -> None:
    assert hashlib.sha256((ROOT / "scripts/benchmarks/echo.py").read_bytes()).hexdigest() == _FROZEN


@pytest.mark.parametrize(
    ("dialect", "name", "replies"),
    [(Text(), "text", 1), (Oldest("r"), "oldest", 1), (OurClient("r"), "client_half", 2)],
)
def test_the_echo_answers_what_is_asked(
    dialect: Dialect, name: str, replies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, bytes]] = []
    yardstick = echo.Echo()
    monkeypatch.setattr(
        yardstick.client, "publish_plain", lambda topic, payload, _properties: said.append((topic, payload))
    )
    getattr(yardstick, name)(Incoming("general/user_input/s1", dialect.request(7, _HOME)))
    trip = Trip(7, 0.0)
    assert [dialect.reply(trip, payload) for _, payload in said] == [False] * (replies - 1) + [True]
    assert not trip.wrong
    assert {topic for topic, _ in said} == {f"{_HOME}/load" if name == "client_half" else _HOME}


def test_the_oldest_clients_say_five_things_and_our_client_more() -> None:
    oldest, ours = (json.loads(dialect("r").request(7, _HOME)) for dialect in (Oldest, OurClient))
    assert set(oldest) == {"sessionId", "message", "replyTopic", "clientId", "requestId"}
    assert set(ours) == set(oldest) | {"reply", "deadlineMs"}
    assert (oldest["sessionId"], oldest["requestId"]) == (ours["sessionId"], ours["requestId"]) == ("s1", "r-7")


def test_a_commit_that_is_not_here_is_named() -> None:
    with pytest.raises(NoSuchCommitError, match="does not have the commit no-such-commit"), exported("no-such-commit"):
        pass
