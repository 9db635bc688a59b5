"""`inferbus ask --messages`: a whole conversation from a file or a pipe, and what is wrong with one, with its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.fake_worker import Act, FakeWorker, accepted, delta, done
from support.inferbus import inferbus
from support.mosquitto import Mosquitto

TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "My name is Zorvek"},
    {"role": "assistant", "content": "Noted"},
    {"role": "user", "content": [{"type": "text", "text": "What is my näme?"}]},
]
LINES = "\n".join(map(json.dumps, TALK))


def count(request: Mapping[str, Any]) -> Iterator[Act]:
    yield accepted()
    if request.get("stream"):
        yield delta("it has ")
    yield done(f"it has {len(request['messages'])}")


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    fake_worker.script = count
    return ("ask", "--broker", broker.url, "--project", fake_worker.project)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TALK),
        json.dumps(TALK, indent=2, ensure_ascii=False),
        json.dumps({"model": "phi", "messages": TALK}, indent=2),
        LINES,
        f"\n{LINES.replace(chr(10), chr(13) + chr(10) * 2)}\n\n",
    ],
    ids=["list", "pretty", "request", "lines", "odd lines"],
)
def test_it_travels_as_it_is_written_and_belongs_to_no_session(
    way: tuple[str, ...], fake_worker: FakeWorker, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "talk.json"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    for run in (inferbus(*way, "--messages", str(file)), inferbus(*way, "--messages", "-", stdin=text)):
        assert (run.returncode, run.stdout, run.stderr) == (0, "it has 4\n", "")
    for heard in fake_worker.heard:
        assert heard["messages"] == TALK
        assert "message" not in heard


def test_one_message_is_a_conversation_too(way: tuple[str, ...]) -> None:
    assert inferbus(*way, "--messages", "-", stdin=json.dumps(TALK[1], indent=1)).stdout == "it has 1\n"
    assert inferbus(*way, "--messages", "-", stdin=json.dumps(TALK[1])).stdout == "it has 1\n"


def test_it_is_asked_as_others_are(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    options = ("--json", "--stream", "--model", "phi", "--max-tokens", "9")
    lines = [json.loads(line) for line in inferbus(*way, *options, "--messages", "-", stdin=LINES).stdout.splitlines()]
    assert (lines[0], lines[-1]["text"]) == ({"delta": "it has "}, "it has 4")
    assert (fake_worker.heard[-1]["model"], fake_worker.heard[-1]["maxTokens"]) == ("phi", 9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "standard input: there is nothing to ask: it is empty."),
        ("[]", "standard input: messages: "),
        ('[{"role": "user",\n "content": hello}]', "standard input: line 2, column 13: no JSON: Expecting value."),
        (f"{LINES}\n\nhello", "standard input: line 6, column 1: no JSON: Expecting value."),
        ('{"role": "user", "content": "x"}\n{"role": "user"}', "standard input: line 2, user.content: Field required."),
        (json.dumps([*TALK, {"role": "usr", "content": "x"}]), "standard input: message 5 of 5: "),
        (json.dumps([*TALK, 7]), "standard input: message 5 of 5: "),
        ("7", "standard input: must be a list of messages, or one message a line."),
        ("[" * 100_000, "standard input: nests too deep"),
        ("\n".join(['{"role": "user", "content": "x"}', "[" * 100_000]), "standard input: line 2 nests too deep"),
        (json.dumps([{"role": "user", "content": " "}]), "standard input: message 1 of 1"),
        ('{"messages": 7}', "standard input: must be a list of messages, or one message a line."),
    ],
)
def test_what_is_wrong_with_one_is_said_with_its_place(text: str, words: str) -> None:
    run = inferbus("ask", "--messages", "-", stdin=text)
    assert (run.returncode, run.stdout) == (2, "")
    assert f"Error: --messages: {words}" in run.stderr
    assert len(run.stderr) < 1000


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_bytes(b'[{"role": "user", "content": "\xff"}]')
    for name, words in (
        (str(broken), "broken.json: is not UTF-8."),
        (str(tmp_path / "none"), "none: cannot be read: No such file or directory."),
        (str(tmp_path), "cannot be read: Is a directory."),
    ):
        run = inferbus("ask", "--messages", name)
        assert run.returncode == 2
        assert words in run.stderr


def test_one_thing_is_asked_at_a_time() -> None:
    both = inferbus("ask", "--messages", "-", "hello", stdin=LINES)
    assert (both.returncode, "--messages stands in the place of TEXT" in both.stderr) == (2, True)
    nothing = inferbus("ask")
    assert (nothing.returncode, "Give TEXT, or --messages" in nothing.stderr) == (2, True)
    two_prompts = inferbus("ask", "--system-prompt", "Be loud.", "--messages", "-", stdin=LINES)
    assert (two_prompts.returncode, "--system-prompt: excludes a system message" in two_prompts.stderr) == (2, True)
