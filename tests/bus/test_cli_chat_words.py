"""What a chat says while an answer does not come, and its commands about what was said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pexpect
import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from support.fake_worker import Act, FakeWorker, WaitForCancel, accepted, delta, done, echo, error
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto
from support.terminal import end, in_terminal
from support.waiting import until

#: prompt_toolkit has drawn the prompt and waits.
PROMPT = r"\x1b\[\?2004h"

Chat = Callable[..., Any]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Chat]:
    """Starts `inferbus` in a terminal of 24 lines and 100 columns, in a folder of its own."""
    started: list[Any] = []

    def start(*arguments: str, **variables: str) -> Any:
        variables = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "XDG_STATE_HOME": str(tmp_path), **variables}
        child = pexpect.spawn(
            PROGRAM,
            list(arguments),
            dimensions=(24, 100),
            env=environment(**variables),
            encoding="utf-8",
            timeout=60,
            cwd=str(tmp_path),
        )
        started.append(child)
        return child

    yield start
    for child in started:
        end(child)


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    return ("--broker", broker.url, "--project", fake_worker.project)


def announce(worker: FakeWorker, name: str, **fields: Any) -> None:
    presence = {"worker": name, "state": "ready", "model": "tiny-model", "projects": [worker.project], **fields}
    worker.publish(topics.presence(name), Presence.model_validate(presence).encode(), retain=True)


#: Between two words: a blank, or the end of a line in its colours.
_FOLD: Final = r"(?:\s|\x1b\[[0-9;?]*[A-Za-z])+"


def say(child: Any, line: str, *expected: str) -> None:
    """Say a line; the words that are expected may be folded anywhere: how long a path before them is, nobody knows."""
    child.expect(PROMPT)
    child.sendline(line)
    for words in expected:
        child.expect(_FOLD.join(map(re.escape, words.split(" "))))


class TestWhatItWaitsFor:
    @pytest.mark.slow
    def test_a_limit(self, terminal: Chat, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        """In a chat and in `ask`; the second one's line is gone when the answer comes."""
        for command in (("chat", "-q", "x"), ("chat", "--plain", "-q", "x"), ("ask", "x")):
            replies: Iterator[Iterable[Act]] = iter(
                [[error("rate_limited", retry_after_ms=2500)], [done("here it is")]]
            )
            fake_worker.script = lambda _, replies=replies: next(replies)  # type: ignore[misc]
            child = terminal(*command, *way)
            child.expect("rate limited, trying again in 3 s")
            child.expect("rate limited, trying again in 2 s")
            child.expect("here it is")
            child.expect(pexpect.EOF)

    def test_the_place_in_the_queue(self, terminal: Chat, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        fake_worker.script = lambda _: [accepted(3, eta_ms=11_900), WaitForCancel()]
        for command in ("chat", "ask"):
            child = terminal(command, *way, *(("-q",) if command == "chat" else ()), "x")
            child.expect("place 3 in the queue, about 1[12] s")
            child.expect("about 10 s")
            child.sendintr()
            child.expect(pexpect.EOF)

    def test_a_broker_that_is_away(self, terminal: Chat, own_broker: Mosquitto) -> None:
        with FakeWorker(own_broker.port, project="away") as worker:
            child = terminal("chat", "--broker", own_broker.url, "--project", "away", "--first-timeout", "3s")
            say(child, "hello", "You said: hello")
            child.expect(PROMPT)
            own_broker.stop()
            child.sendline("anybody there?")
            child.expect("no connection to the broker")
            own_broker.start()
            child.expect("You said: anybody there")
            assert worker.heard

    def test_a_chat_begins_with_the_model_that_is_to_answer(self, terminal: Chat, own_broker: Mosquitto) -> None:
        """It named the first project's, whatever --model said."""
        states = {"phi": "ready", "qwen": "unavailable"}
        with FakeWorker(own_broker.port, project="robots") as worker:
            announce(worker, "w1", model="phi", models=states, projects=["robots", "others"])
            way = ("chat", "--broker", own_broker.url, "--project")
            for options, words in (
                (("robots",), "phi on w1"),
                (("robots", "--model", "phi"), "phi on w1"),
                (("robots", "--model", "qwen"), "qwen (unavailable) on w1"),
                (("robots", "--model", "qwem"), "w1 has no model qwem (it has phi, qwen); is qwen meant?"),
                (("robots", "--model", "gpt"), "w1 has no model gpt (it has phi, qwen)"),
                (("others",), "one of phi, qwen on w1"),
            ):
                child = terminal(*way, *options)
                child.expect_exact(words)
                end(child)

    def test_a_broker_that_nobody_reaches(self, terminal: Chat) -> None:
        for command in (("ask", "x"), ("chat", "-q", "x")):
            child = terminal(*command, "--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "2s")
            child.expect("connecting to mqtt://127.0.0.1:1")
            child.expect("cannot reach the broker")

    @pytest.mark.slow
    def test_a_worker_that_does_not_serve_us(self, terminal: Chat, own_broker: Mosquitto) -> None:
        with FakeWorker(own_broker.port, project="other") as worker:
            announce(worker, "w1")
            announce(worker, "w2", state="loading", projects=["later"])
            for project, words in (("nobody", "nobody"), ("later", r"later \(w2 is loading\)")):
                child = terminal("chat", "--broker", own_broker.url, "--project", project, "--first-timeout", "3s")
                child.expect(f"no worker serves {words}: see `inferbus doctor`")
                say(child, "hello", f"no worker serves {project}")
                child.expect("no first sign of life")
            child = terminal("ask", "--broker", own_broker.url, "--project", "nobody", "--first-timeout", "3s", "x")
            child.expect("no worker serves nobody: see `inferbus doctor`")

    def test_a_dumb_terminal_gets_a_line_for_each(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        replies: Iterator[Iterable[Act]] = iter([[error("overloaded", retry_after_ms=2500)], [done("here it is")]])
        fake_worker.script = lambda _: next(replies)
        seen = in_terminal("ask", *way, "x", env={"TERM": "dumb"})
        *waited, answer = seen.text.splitlines()
        assert answer == "here it is"
        # A busy machine may come to other words before and after; the count-down is one line, whatever it says.
        refusals = [line for line in waited if line.startswith("the worker is overloaded, trying again in ")]
        assert len(refusals) == 1
        assert all(line.startswith(("connecting to ", "waiting for the worker")) for line in set(waited) - {*refusals})

    def test_nobody_looks_on(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        replies: Iterator[Iterable[Act]] = iter([[error("overloaded", retry_after_ms=1000)], [done("here it is")]])
        fake_worker.script = lambda _: next(replies)
        run = inferbus("ask", *way, "x")
        assert (run.stdout, run.stderr) == ("here it is\n", "")

    def test_a_refusal_that_stays_says_when_to_come_back(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        fake_worker.script = lambda _: [error("rate_limited", retry_after_ms=47_100)]
        assert inferbus("ask", *way, "--retries", "0", "x").stderr.endswith("Try again in 48 s.\n")


def test_the_greeting_names_model_and_worker(terminal: Chat, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    announce(fake_worker, "greeter")
    for form in ((), ("--plain",)):
        terminal("chat", *form, *way).expect("tiny-model on greeter")
    fake_worker.publish(topics.presence("greeter"), b"", retain=True)


def test_ask_streams_at_a_terminal(terminal: Chat, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), delta("the beginning"), WaitForCancel(), error("cancelled")]
    child = terminal("ask", *way, "x")
    child.expect("the beginning")
    assert child.isalive()
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    fake_worker.script = echo
    terminal("ask", "--no-stream", *way, "x").expect(pexpect.EOF)
    assert [heard.get("stream", False) for heard in fake_worker.heard] == [True, False]


class TestWhatWasSaid:
    def test_a_stopped_answer_is_marked_and_can_be_asked_again(
        self, terminal: Chat, way: tuple[str, ...], fake_worker: FakeWorker, tmp_path: Path
    ) -> None:
        for form in ((), ("--plain",)):
            fake_worker.script = lambda _: [accepted(), delta("the beginning"), WaitForCancel(), error("cancelled")]
            child = terminal("chat", *form, *way)
            say(child, "a long story", "the beginning")
            child.sendintr()
            child.expect(r"\(stopped\)")
            until(lambda: fake_worker.cancels)
            fake_worker.cancels.clear()
            fake_worker.script = echo
            say(child, "/retry", "You said: a long story")
            file = tmp_path / f"story{len(form)}.md"
            say(child, f"/save {file}", "What was said is in")
            say(child, f"/save {file}", "is there already")
            text = file.read_text()
            assert "**You:** a long story\n\n**Answer:** the beginning\n\n*(stopped)*\n" in text
            assert text.endswith("**You:** a long story\n\n**Answer:** You said: a long story\n")
            end(child)

    def test_an_answer_that_breaks_off(self, terminal: Chat, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        fake_worker.script = lambda _: [accepted(), delta("the beginning"), error("engine_error")]
        for form in ((), ("--plain",)):
            child = terminal("chat", *form, *way, "-q", "x")
            child.expect("the beginning")
            child.expect(r"\(broken off\)")
            child.expect("The model failed to answer")

    def test_files_that_cannot_be_written(self, terminal: Chat, way: tuple[str, ...], tmp_path: Path) -> None:
        child = terminal("chat", *way)
        for line, words in (
            ("/retry", "nothing to send again"),
            ("/save", "Usage: /save FILE"),
            ("/save x", "Nothing has been said"),
            ("hello", "You said: hello"),
            ("/save /dev/null/x", "cannot be written"),
            (f"/save {tmp_path}", "is there already"),
            ("/save ~nobody-of-that-name/x", "cannot be written"),
            ("/save here.md", "here.md"),
        ):
            say(child, line, words)
        until((tmp_path / "here.md").exists)


def test_a_setting_that_the_worker_would_refuse_is_not_taken(
    terminal: Chat, way: tuple[str, ...], fake_worker: FakeWorker
) -> None:
    child = terminal("chat", *way)
    for line, words in (
        ("/settings temperature 1", "temperature: 1.0"),
        ("/settings temperature 9", "temperature: must be at most 2."),
        ("/settings temperature nan", "temperature: must be a finite number."),
        ("/settings temperature warm", "takes a number"),
        ("/settings temperature=0.5", "temperature: 0.5"),
        ("/settings top_k = 7", "top_k: 7"),
        ("/settings temperature=1", "temperature: 1.0"),
        ("/settings max_tokens 0", "max_tokens: must be at least 1."),
        ("/settings seed soon", "seed: must be a whole number."),
        ("/settings stop " + "[" * 2000, "stop"),
        ("hello", "You said: hello"),
    ):
        say(child, line, words)
    assert (fake_worker.heard[-1]["temperature"], "maxTokens" in fake_worker.heard[-1]) == (1.0, False)


def test_a_system_prompt_outlives_what_makes_the_worker_forget_it(
    terminal: Chat, way: tuple[str, ...], fake_worker: FakeWorker
) -> None:
    child = terminal("chat", *way, "--system-prompt", "Be brief.")
    for line, words in (
        ("one", "You said: one"),
        ("two", "You said: two"),
        ("/reset", "forgotten"),
        ("three", "You said: three"),
        ("/session new", "fresh-session"),
        ("four", "You said: four"),
        ("/system Be kind.", "replaced"),
        ("five", "You said: five"),
        ("/reset", "forgotten"),
        ("six", "You said: six"),
        ("/session other", "other"),
        ("seven", "You said: seven"),
    ):
        say(child, line, words)
    prompts = [heard.get("systemPrompt") for heard in fake_worker.heard]
    assert prompts == ["Be brief.", None, "Be brief.", "Be brief.", "Be kind.", "Be kind.", None]


def test_status(terminal: Chat, own_broker: Mosquitto) -> None:
    def script(request: Mapping[str, Any]) -> Iterable[Act]:
        return [accepted(), done(f"You said: {request['message']}")]

    with FakeWorker(own_broker.port, script=script, project="statusful") as worker:
        announce(worker, "w1")
        announce(worker, "w2", state="offline")
        announce(worker, "w3", projects=["elsewhere"])
        child = terminal("chat", "--broker", own_broker.url, "--project", "statusful", "--session", "mine")
        say(child, "hello", "You said: hello")
        say(
            child,
            "/status",
            f"{own_broker.url}: connected, MQTT 5",
            "project statusful, session mine",
            "w1: ready, tiny-model",
            "w2: offline, tiny-model",
            "last answer: 3 tokens in",
        )
        assert "w3" not in child.before
