"""examples/micropython, run by MicroPython itself in Node; only its sockets are another's."""

from __future__ import annotations

import pytest

from support.example_bus import EXAMPLES, LIMITED, OPEN, ExampleBus
from support.listener import Listener
from support.node import run_node
from support.waiting import until

pytestmark = pytest.mark.timeout(700)  # npm may have to install what the tests need

FILES = [EXAMPLES / "micropython" / name for name in ("inferbus.py", "main.py")]


def printed(bus: ExampleBus, *questions: str, project: str = OPEN, timeout_ms: int = 60_000) -> list[str]:
    """What a board says that asks these."""
    settings = {"BROKER": bus.broker.host, "PORT": bus.broker.port, "USER": None, "PASSWORD": None}
    settings |= {"PROJECT": project, "QUESTIONS": questions, "TIMEOUT_MS": timeout_ms}
    config = (EXAMPLES / "micropython/config_example.py").read_text()
    config += "".join(f"{name} = {value!r}\n" for name, value in settings.items())
    return run_node("board.mjs", config, *FILES).splitlines()


def test_a_board_asks_and_prints_the_answers_and_what_would_be_refused_again(bus: ExampleBus) -> None:
    with Listener(bus.broker, "boards/board-0102") as listener:
        assert printed(bus, 'one "two"', " ", "naïve") == [
            'one "two"',
            "no answer, invalid_request: Error: Invalid request. The message is blank.",
            "naïve",
        ]
        until(lambda: "online offline" in " ".join(heard.text for heard in listener.heard))


def test_a_refusal_is_waited_out(bus: ExampleBus) -> None:
    assert printed(bus, "one", "two", project=LIMITED) == ["one", "two"]


def test_a_busy_session_and_nobody_are_given_up_when_the_time_is_over(bus: ExampleBus) -> None:
    with bus.busy("board-0102"):
        (line,) = printed(bus, "hello", timeout_ms=4000)
    assert line.startswith("no answer, session_busy: Please wait")
    assert printed(bus, "hello", project="nobody", timeout_ms=500) == [
        "no answer, timeout: nobody has answered in time"
    ]
