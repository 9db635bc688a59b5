"""Terminals that know no Unicode, no colour, no cursor, or little room."""

from __future__ import annotations

import re
from typing import Final

import pytest

from support.fake_worker import FakeWorker, Wait, accepted, delta, done
from support.mosquitto import Mosquitto, mosquitto_pub
from support.terminal import in_terminal

ANSWER: Final = "# Grüße\n\nQuote „so“ \N{EN DASH} and 日本 … done\n\n- item\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
#: By what the user's environment says.
TERMINALS: Final = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "LC_ALL=C": {"LC_ALL": "C", "LANG": "C"},
    "LC_ALL=C, no coercion": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
COLOUR: Final = re.compile(rb"\x1b\[[0-9;]*[34][0-9][;m]")
ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    fake_worker.script = lambda _: [accepted(2, eta_ms=900), Wait(0.3), delta(ANSWER), done(ANSWER)]
    return ("--broker", broker.url, "--project", fake_worker.project)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((("chat", "-q", "x"), name) for name in TERMINALS),
        *((("ask", "x"), name) for name in ("latin-1", "ascii")),
        (("chat", "--plain", "-q", "x"), "ascii"),
        (("stress", "--messages", "1", "--clients", "1"), "ascii"),
        (("doctor",), "ascii"),
        (("status", "--once"), "ascii"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_it_cannot_show_is_spelled_out(way: tuple[str, ...], command: tuple[str, ...], name: str) -> None:
    seen = in_terminal(*command, *way, env=TERMINALS[name])
    assert seen.status == (1 if command[0] == "status" else 0), seen.raw
    assert b"Traceback" not in seen.raw
    if name in {"latin-1", "ascii"}:
        seen.raw.decode(name)
    if name == "ascii" and command[0] in {"ask", "chat"}:
        for spelled in ("Gr\\xfc\\xdfe", 'Quote "so" - and \\u65e5\\u672c ... done'):
            assert spelled in ESCAPE.sub("", seen.text)


@pytest.mark.parametrize("name", ["latin-1", "ascii"])
def test_help(name: str) -> None:
    for command in ((), ("stress",)):
        seen = in_terminal(*command, "--help", env=TERMINALS[name])
        assert seen.status == 0
        assert "{project}/users/" in seen.raw.decode(name) or not command


def test_a_latin_1_terminal_shows_what_it_has(way: tuple[str, ...]) -> None:
    for command in (("ask", "x"), ("chat", "-q", "x")):
        assert "Grüße".encode("latin-1") in in_terminal(*command, *way, env=TERMINALS["latin-1"]).raw


@pytest.mark.slow
def test_a_dumb_terminal_gets_lines_and_no_colour_is_none(way: tuple[str, ...], own_broker: Mosquitto) -> None:
    for command in (("chat", "-q", "x"), ("ask", "x")):
        for term in ("dumb", ""):
            assert b"\x1b" not in in_terminal(*command, *way, env={"TERM": term}).raw, command
        assert not COLOUR.search(in_terminal(*command, *way, env={"NO_COLOR": "1"}).raw), command
    nowhere = ("--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "500ms")
    assert COLOUR.search(in_terminal("doctor", *nowhere).raw)
    for variables in ({"TERM": "dumb"}, {"TERM": ""}, {"NO_COLOR": "1"}):
        assert not COLOUR.search(in_terminal("doctor", *nowhere, env=variables).raw)
    mosquitto_pub(own_broker, "inferbus/workers/w1/status", '{"v": 1, "worker": "w1", "state": "ready"}', "-r")
    status = ("status", "--once", "--broker", own_broker.url)
    assert COLOUR.search(in_terminal(*status).raw)
    assert not COLOUR.search(in_terminal(*status, env={"TERM": ""}).raw)


@pytest.mark.slow
def test_forty_columns_are_enough(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    answer = "word " * 60
    fake_worker.script = lambda _: [accepted(), delta(answer), done(answer)]
    stress = ("stress", "--clients", "1", "--messages", "1")
    for command in (("chat", "-q", "x"), ("doctor",), stress, (*stress[:1], "--sweep", "1,2", *stress[3:])):
        shown = in_terminal(*command, *way, columns=40).text
        assert "…" not in shown
        lines = ESCAPE.sub("", shown).split("\n")
        assert max(len(line.rstrip().rpartition("\r")[2]) for line in lines) <= 40, command
