"""The benchmarks' yardsticks, and what a load says: the figures are only as good as these."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Final

import pytest

from benchmarks import document, echo, machine, plot
from benchmarks.commits import NoSuchCommitError, exported
from benchmarks.dialects import Dialect, Oldest, OurClient, Text
from benchmarks.figures import Scaling, Section, Spread
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


def test_the_document_keeps_the_sections_that_were_not_measured_anew(tmp_path: Path) -> None:
    out = tmp_path / "figures.md"
    for suite, figure in (("bus", "1"), ("curves", "2"), ("bus", "3")):
        sections = document.merge(out, [_section(suite, figure)])
        document.write(out, sections, plot.draw(out, sections))
    text = out.read_text()
    assert "| 1 |" not in text
    assert text.index("| 3 |") < text.index("| 2 |")
    assert [name for name in ("figures.svg", "figures-curves.svg") if f"]({name})" in text] == ["figures-curves.svg"]
    assert (tmp_path / "figures-curves.svg").exists()


def test_the_document_says_how_fast_the_machine_was_when_a_section_was_taken(tmp_path: Path) -> None:
    out = tmp_path / "figures.md"
    taken = {"rounds": 1, "machine": machine.here(), "call_ns": machine.call_ns()}
    document.write(out, [_section("bus", "1").model_copy(update=taken)], {})
    assert re.search(
        r", 1 round, on \d+ cores .*\n- Load average .*; calling a Python function took \d+ ns\.\n", out.read_text()
    )


def _section(suite: str, figure: str) -> Section:
    spreads = [Spread(median=1, low=1, high=1)] * 2
    names = ("requests/s", "p50 (ms)", "p99 (ms)", "CPU per request (µs)")
    scaling = Scaling(over="projects", points=[0, 5], figures=dict.fromkeys(names, spreads))
    return Section(
        suite=suite,
        title=suite,
        method=[],
        header=["what"],
        rows=[[figure]],
        scaling=scaling if suite == "curves" else None,
    )
