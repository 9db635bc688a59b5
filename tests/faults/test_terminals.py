"""Trial 44: escape sequences and control characters in every field that a terminal shows are shown as text."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from support.fake_worker import FakeWorker, Say, accepted, delta, done
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto
from support.terminal import Seen, in_terminal

#: What a terminal would obey, or show in the place of what is there.
HOSTILE: Final = {
    "window title": "\x1b]0;owned\x07",
    "clear screen": "\x1b[2J\x1b[H",
    "clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "hyperlink": "\x1b]8;;http://owned.example\x1b\\here\x1b]8;;\x1b\\",
    "device control": "\x1bP+q544e\x1b\\",
    "one-byte CSI": "\x9b2J",
    "one-byte OSC": "\x9d0;owned\x9c",
    "overwritten line": "evil\rgood",
    "backspaces": "evil\x08\x08\x08\x08good",
    "reversed": "\u202efdp.exe",
    "hidden": "\U000e0041",
}
ALL: Final = " and ".join(HOSTILE.values())
#: Colours and the like, which are our own.
STYLES: Final = re.compile(r"\x1b\[[0-9;]*m")


def assert_shown_as_text(seen: Seen) -> None:
    """None of it as it was; and the written form of the first, so that it was not just left out."""
    for name, sequence in HOSTILE.items():
        assert sequence.encode() not in seen.raw, f"{name}: {seen.raw!r}"
    assert "\\x1b]0;owned\\x07" in seen.text.replace("\n", ""), seen.text


@pytest.fixture
def fake_worker(broker: Mosquitto) -> Iterator[FakeWorker]:
    """Says hostile things, and keeps to the contract otherwise."""
    with FakeWorker(broker.port, project="terminal-trial") as worker:
        worker.script = lambda _: [accepted(), delta(ALL[:1]), delta(ALL[1:]), done(ALL)]
        yield worker


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    return ("--broker", broker.url, "--project", fake_worker.project)


@pytest.mark.parametrize("form", [("--stream",), (), ("--json",), ("--json", "--stream")], ids=" ".join)
def test_an_answer_at_a_terminal(way: tuple[str, ...], form: tuple[str, ...]) -> None:
    seen = in_terminal("ask", *way, *form, "x", columns=2000)
    for name, sequence in HOSTILE.items():
        assert sequence.encode() not in seen.raw, f"{name}: {seen.raw!r}"
    if "--json" in form:
        assert json.loads(seen.text.splitlines()[-1])["text"] == ALL
    else:
        assert_shown_as_text(seen)


@pytest.mark.parametrize("form", [("--stream",), ()], ids=" ".join)
def test_an_answer_in_a_pipe_is_what_the_model_said(way: tuple[str, ...], form: tuple[str, ...]) -> None:
    run = subprocess.run(
        [PROGRAM, "ask", *way, *form, "x"], capture_output=True, env=environment(), timeout=60, check=True
    )
    assert run.stdout == f"{ALL}\n".encode()


@pytest.mark.parametrize("form", [(), ("--plain",)], ids=["markdown", "plain"])
@pytest.mark.parametrize(
    "frame", ["{}", "# {}\n\n`{}`\n\n```\n{}\n```\n\n| a |\n|---|\n| {} |\n"], ids=["text", "blocks"]
)
def test_a_chat_at_a_terminal(way: tuple[str, ...], fake_worker: FakeWorker, form: tuple[str, ...], frame: str) -> None:
    answer = frame.replace("{}", ALL)
    fake_worker.script = lambda _: [accepted(), *(delta(letter) for letter in answer), done(answer)]
    assert_shown_as_text(in_terminal("chat", *way, *form, "-q", "x", columns=2000))


def test_what_markdown_would_make_of_it(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    """An entity is decoded after the answer was read, and a link may lead elsewhere than it says."""
    answer = (
        "&#x202e;fdp.exe, &#27;]0;owned&#7; and [your bank](http://owned.example) in List<Owned>.\n\n<b>owned</b>\n"
    )
    fake_worker.script = lambda _: [accepted(), delta(answer), done(answer)]
    seen = in_terminal("chat", *way, "-q", "x")
    assert "\u202e" not in seen.text
    assert b"\x1b]" not in seen.raw
    plain = STYLES.sub("", seen.text)
    for shown in ("your bank (http://owned.example)", "List<Owned>", "<b>owned</b>"):
        assert shown in plain


def test_a_failure_in_the_workers_words(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fields = {"status": 400, "message": f"Error: Invalid request. {ALL}", "retryable": False, "retryAfterMs": None}
    fake_worker.script = lambda _: [Say({"type": "error", "code": "invalid_request", **fields})]
    for command in (("ask", *way, "x"), ("chat", *way, "-q", "x"), ("chat", "--plain", *way, "-q", "x")):
        assert_shown_as_text(in_terminal(*command, columns=2000))
    # An error is for people, also where it ends up in a file.
    assert "\\x1b]0;owned\\x07" in inferbus("ask", *way, "x").stderr


def test_a_session_in_the_workers_words(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.fresh_session = ALL
    assert_shown_as_text(in_terminal("chat", *way, "-q", "/session new", columns=2000))


def test_doctors_findings(own_broker: Mosquitto) -> None:
    with FakeWorker(own_broker.port, project="terminal-trial") as worker:
        for number, projects in enumerate((["terminal-trial"], [ALL])):
            presence = Presence.model_validate(
                {"worker": ALL, "state": "ready", "model": ALL, "projects": projects, "instance": None}
            )
            worker.publish(topics.presence(f"w{number}"), presence.encode(), retain=True)
        for project in ("terminal-trial", "another"):
            way = ("--broker", own_broker.url, "--project", project, "--first-timeout", "300ms")
            assert_shown_as_text(in_terminal("doctor", *way, columns=2000))


def test_the_demos_replies(broker: Mosquitto) -> None:
    """The simulated engine says what it hears."""
    assert_shown_as_text(in_terminal("demo", "--broker", broker.url, "--engine", "simulated", "--once", ALL))
