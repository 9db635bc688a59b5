"""A real process that the worker starts: it prints, ends, refuses to end, and never outlives whoever started it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from inferbus_worker.engines.managed.commands import Command
from inferbus_worker.engines.managed.server import Server, free_port
from support.processes import GUARDS, assert_gone, family, is_running
from support.waiting import until

TINY = Path(__file__).parents[1] / "support" / "tiny_server.py"
START = Callable[..., Server]
ORPHAN = "import time; time.sleep(600)"

OWNER = f"""
import sys, threading
from inferbus_worker.engines.managed.commands import Command
from inferbus_worker.engines.managed.server import Server, free_port
port = free_port()
server = Server(Command((sys.executable, {str(TINY)!r}, "--port", str(port), *sys.argv[1:]), {{}}), port, "tiny")
server.start()
print(port, flush=True)
threading.Event().wait()
"""


@pytest.fixture
def start() -> Iterator[START]:
    with ExitStack() as running:

        def start(*flags: str, **environment: str) -> Server:
            port = free_port()
            command = Command((sys.executable, str(TINY), "--port", str(port), *flags), environment)
            server = Server(command, port, "tiny")
            server.start()
            running.callback(server.stop, 10)
            return server

        yield start


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 - http, and our own
            return bool(answer.status == 200)
    except OSError:
        return False


def processes_of(server: Server) -> list[psutil.Process]:
    assert server._guard is not None
    return family(server._guard.pid)


def with_an_orphan(server: Server) -> list[psutil.Process]:
    """The guards, the server and what that has left behind in a session of its own, once they are all there."""
    found = processes_of(server)
    guards = [process.pid for process in found[:GUARDS]]
    try:
        is_there = any(process.ppid() in guards for process in found if process.cmdline()[-1:] == [ORPHAN])
    except psutil.NoSuchProcess:  # one on its way between the two
        return []
    return found if len(found) == GUARDS + 2 and is_there else []


def test_it_serves_at_its_port_and_a_stop_leaves_nothing(start: START) -> None:
    server = start("--fork-grandchild")
    until(lambda: is_healthy(server.url))
    running = processes_of(server)
    assert len(running) == GUARDS + 2, "the guards, the server, and what that left behind"
    assert 1_000_000 < (server.memory_bytes or 0) < 1_000_000_000
    server.stop(10)
    assert_gone(running)
    assert not server.is_alive
    assert server.memory_bytes is None
    server.stop(10)


def test_one_that_heeds_no_sigterm_is_killed_in_time(start: START) -> None:
    server = start("--ignore-sigterm", "--fork-grandchild")
    until(lambda: is_healthy(server.url))
    running = processes_of(server)
    server.stop(2)
    assert_gone(running, 1)
    assert server.ending == "it was ended by SIGKILL"


def test_its_own_end_ends_what_it_has_started(start: START) -> None:
    server = start("--fork-grandchild", "--crash-after", "1")
    until(lambda: is_healthy(server.url))
    running = processes_of(server)
    assert server.ended.wait(60)
    assert_gone(running)
    assert server.ending == "it ended with status 3"


def test_a_killed_guard_takes_the_server_along_and_a_stop_the_rest(start: START) -> None:
    server = start("--fork-grandchild")
    until(lambda: is_healthy(server.url))
    running = processes_of(server)
    assert server.memory_bytes
    running[0].kill()
    assert_gone(running[:1])
    until(lambda: not is_healthy(server.url))
    server.stop(5)
    assert_gone(running)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no subreapers: what has left the group is not found")
@pytest.mark.parametrize("which", range(GUARDS))
def test_sigkill_of_a_guard_before_the_server_answers_leaves_nothing(start: START, which: int) -> None:
    """Nobody had looked yet at what was below it: what had a session of its own stayed, with all its memory."""
    server = start("--fork-grandchild", "--start-delay", "600")
    running = until(lambda: with_an_orphan(server))
    running[which].kill()
    assert_gone(running)
    assert server.ended.wait(60)
    assert server.ending == "it was ended by SIGKILL"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no subreapers: what has left the group is not found")
def test_sigkill_of_the_owner_leaves_nothing() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), "--fork-grandchild", "--ignore-sigterm"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        url = f"http://127.0.0.1:{int(owner.stdout.readline())}"
        until(lambda: is_healthy(url))
        everybody = family(owner.pid)
        assert len(everybody) == 1 + GUARDS + 2
        owner.kill()
        assert_gone(everybody)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no subreapers: what has left the group is not found")
@pytest.mark.parametrize("guard", [1, 2])
def test_sigkill_of_the_owner_wakes_a_guard_that_was_stopped(guard: int) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), "--fork-grandchild", "--ignore-sigterm"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        url = f"http://127.0.0.1:{int(owner.stdout.readline())}"
        until(lambda: is_healthy(url))
        everybody = family(owner.pid)
        try:
            everybody[guard].suspend()
            owner.kill()
            assert_gone(everybody)
        finally:
            for process in everybody:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of macOS tells of no other process' end this way")
def test_sigkill_of_an_owner_that_has_forked_leaves_nothing_but_the_fork() -> None:
    """The fork holds the lifeline's end too."""
    forked = "import os\nif os.fork() == 0: threading.Event().wait()\n"
    owner = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", OWNER.replace("print(port", f"{forked}print(port")],
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        url = f"http://127.0.0.1:{int(owner.stdout.readline())}"
        until(lambda: is_healthy(url))
        _, *others = family(owner.pid)
        [fork] = [process for process in others if "-W" in process.cmdline()]
        owner.kill()
        assert_gone([process for process in others if process != fork])
        fork.kill()


def test_what_a_terminal_sends_to_everybody_reaches_the_owner_alone() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, lambda *_: None)\n" + OWNER],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with owner:
        assert owner.stdout is not None
        url = f"http://127.0.0.1:{int(owner.stdout.readline())}"
        until(lambda: is_healthy(url))
        os.killpg(owner.pid, signal.SIGINT)
        [_, *guards, server] = everybody = family(owner.pid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # as a supervisor may, to all that it started
            for guard in guards:
                guard.send_signal(number)
        assert is_healthy(url)
        assert all(map(is_running, everybody))
        assert os.getpgid(server.pid) == server.pid
        owner.kill()
        assert_gone(everybody)


def test_its_output_is_lines_of_the_log_bounded_and_shown(start: START, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inferbus.managed")
    server = start("--loud")
    until(lambda: "listening" in caplog.text)
    assert [record.getMessage() for record in caplog.records] == [
        f"tiny: {'x' * 500}",
        "tiny: an \\x1b[2J escape",
        "tiny: 50 %",
        "tiny: 100 %",
        f"tiny: \\xfflistening at {server.port}",
    ]
    assert server.output.last_words.startswith("\\xfflistening")


def test_once_it_serves_what_it_prints_is_for_finding_faults(start: START, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "inferbus.managed")
    server = start()
    until(lambda: "listening" in caplog.text)
    server.output.serves()
    caplog.clear()
    assert is_healthy(server.url)
    until(lambda: "GET /health" in caplog.text)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert not server.output.last_words


def test_a_program_that_is_not_there_ends_at_once_and_says_so() -> None:
    server = Server(Command(("no-such-program-anywhere",), {}), free_port(), "tiny")
    server.start()
    assert server.ended.wait(60)
    assert server.ending == "it ended with status 127"
    assert server.output.last_words == "no-such-program-anywhere: No such file or directory"


def test_it_gets_its_own_environment_and_none_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERBUS_PASSWORD", "of the broker")
    words = (sys.executable, "-c", "import os; print('INFERBUS_PASSWORD' in os.environ, os.environ['OWN'])")
    server = Server(Command(words, {"OWN": "its own"}), free_port(), "tiny")
    server.start()
    assert server.ended.wait(60)
    assert server.output.last_words == "False its own"


def test_nothing_of_it_is_left_in_this_process(start: START) -> None:
    server = start()
    until(lambda: is_healthy(server.url))
    server.stop(10)
    assert not [thread for thread in threading.enumerate() if "tiny" in thread.name]
    assert server._guard is not None
    assert server._guard.stdin is not None
    assert server._guard.stdin.closed
    assert server._guard.stdout is not None
    assert server._guard.stdout.closed
