"""`inferbus chat` in a pseudo-terminal, as a person uses it, and in a pipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pexpect
import pytest

from support.fake_worker import Act, FakeWorker, Wait, WaitForCancel, accepted, delta, done, echo, error
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto
from support.terminal import end
from support.waiting import until

#: prompt_toolkit has drawn the prompt and waits.
PROMPT = r"\x1b\[\?2004h"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

Chat = Callable[..., Any]


@pytest.fixture
def chat(broker: Mosquitto, fake_worker: FakeWorker, tmp_path: Path) -> Iterator[Chat]:
    """Starts chats in a terminal of 24 lines and 80 columns."""
    started: list[Any] = []
    way = ["--broker", broker.url, "--project", fake_worker.project]

    def start(*arguments: str, **variables: str) -> Any:
        variables = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "XDG_STATE_HOME": str(tmp_path), **variables}
        child = pexpect.spawn(
            PROGRAM,
            ["chat", *way, *arguments],
            dimensions=(24, 80),
            env=environment(**variables),
            encoding="utf-8",
            timeout=60,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        end(child)


def test_a_conversation(chat: Chat, fake_worker: FakeWorker, tmp_path: Path) -> None:
    child = chat()
    child.expect("/help lists the commands")
    child.expect(PROMPT)
    child.sendline("hello there")
    child.expect("You said: hello there")
    child.expect(PROMPT)
    child.sendline("again")
    child.expect("You said: again")
    child.expect(PROMPT)
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert len({heard["sessionId"] for heard in fake_worker.heard}) == 1
    history = tmp_path / "inferbus" / "chat-history"
    assert "hello there" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_markdown_is_rendered_within_80_columns(chat: Chat, fake_worker: FakeWorker) -> None:
    text = "# Title\n\nSome **bold** words. " + "and more " * 30 + "\n\n```python\nx = 1\n\ny = 2\n```\n\n- item\n"
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    fake_worker.script = lambda _: [accepted(), *(delta(piece) for piece in pieces), done(text)]
    child = chat("-q", "show me")
    shown = ESCAPES.sub("", child.read())
    assert "Title" in shown
    assert "**" not in shown
    assert "```" not in shown
    assert "y = 2" in shown
    assert all(len(line.rstrip()) <= 80 for line in re.split(r"[\r\n]+", shown))


def test_the_place_in_the_queue_is_shown(chat: Chat, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(3, eta_ms=2600), Wait(0.5), delta("here"), done("here")]
    child = chat()
    child.expect(PROMPT)
    child.sendline("x")
    child.expect("place 3 in the queue, about 3 s")
    child.expect("here")


def test_ctrl_c_stops_the_answer_and_a_second_one_leaves(chat: Chat, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), delta("beginning"), WaitForCancel(), error("cancelled")]
    child = chat()
    child.expect(PROMPT)
    child.sendline("x")
    child.expect("beginning")
    child.sendintr()
    child.expect("again leaves")
    until(lambda: len(fake_worker.cancels) == 1)
    fake_worker.script = echo
    child.expect(PROMPT)
    child.sendline("still here?")
    child.expect("You said: still here")
    child.expect(PROMPT)
    child.sendintr()
    child.expect("again leaves")
    child.expect(PROMPT)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


def test_slash_commands(chat: Chat, fake_worker: FakeWorker) -> None:
    child = chat("--session", "first")
    for line, expected in (
        ("/help", "/quit"),
        ("/settings temperature 0", "temperature: 0"),
        ("/settings seed 7", "seed: 7"),
        ("/settings warmth 1", "no setting warmth"),
        ("/system Be brief.", "with the next message"),
        ("one", "You said: one"),
        ("two", "You said: two"),
        ("/session", "first"),
        ("/session new", "fresh-session"),
        ("/session a/b", "consists of"),
        ("/session third", "third"),
        ("/reset", "forgotten"),
        ("/nonsense", "no /nonsense"),
        ("three", "You said: three"),
    ):
        child.expect(PROMPT)
        child.sendline(line)
        child.expect(expected)
    child.expect(PROMPT)
    child.sendline("/quit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    one, two, three = fake_worker.heard
    assert (one["temperature"], one["params"], one["systemPrompt"]) == (0, {"seed": 7}, "Be brief.")
    assert "systemPrompt" not in two
    assert (three["sessionId"], fake_worker.resets) == ("third", ["third"])


def test_a_failure_does_not_end_the_chat(chat: Chat, fake_worker: FakeWorker) -> None:
    def script(request: Mapping[str, Any]) -> Iterable[Act]:
        return [error("engine_error")] if request["message"] == "fail" else echo(request)

    fake_worker.script = script
    child = chat()
    child.expect(PROMPT)
    child.sendline("fail")
    child.expect("The model failed to answer")
    child.expect(PROMPT)
    child.sendline("fine")
    child.expect("You said: fine")


def test_no_colour_where_none_is_wanted(chat: Chat) -> None:
    shown = chat("-q", "# hello **there**", NO_COLOR="1").read()
    assert "hello" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)


def test_a_pipe_gets_plain_text_and_nothing_else(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    way = ("--broker", broker.url, "--project", fake_worker.project)
    run = inferbus("chat", *way, stdin="**one**\n\n/session named\ntwo\n")
    assert (run.returncode, run.stdout) == (0, "You said: **one**\nYou said: two\n")
    assert [heard["sessionId"] for heard in fake_worker.heard][1] == "named"


def test_questions_on_the_command_line(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    way = ("--broker", broker.url, "--project", fake_worker.project)
    run = inferbus("chat", *way, "-q", "one", "-q", "two")
    assert (run.returncode, run.stdout) == (0, "You said: one\nYou said: two\n")
    fake_worker.script = lambda _: [error("engine_error")]
    failed = inferbus("chat", *way, "-q", "one")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "The model failed to answer" in failed.stderr
