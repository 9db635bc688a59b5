"""examples/arduino, compiled for this computer, asks a real worker; the headers of Arduino are stand-ins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.example_bus import EXAMPLES, LIMITED, OPEN, ExampleBus
from support.listener import Listener
from support.needs import needs_program
from support.scripts import ROOT
from support.waiting import until

SESSION = "esp32-02:00:00:00:00:01"
STAND_INS = ROOT / "tests/arduino"
SKETCH = EXAMPLES / "arduino"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arduino")
    program = folder / "board"
    shutil.copy(SKETCH / "arduino.ino", folder)  # away from the secrets of whoever has some beside it
    # By their files, since the links that a compiler goes by come with headers that nobody needs here.
    libraries = ["-l:libmosquitto.so.1", "-l:libcjson.so.1"]
    compiled(f"-I{STAND_INS}", f"-I{folder}", str(STAND_INS / "board.cpp"), "-o", str(program), *libraries)
    return program


def compiled(*arguments: str) -> None:
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([needs_program("g++"), *options, *arguments], check=True, timeout=120)


def printed(board: Path, bus: ExampleBus, *questions: str, project: str = OPEN, give_up_ms: int = 60_000) -> list[str]:
    """What it writes to its serial port, a line for each question."""
    asking = subprocess.run(
        [str(board), str(len(questions))],
        input="".join(f"{question}\n" for question in questions),
        capture_output=True,
        text=True,
        timeout=100,
        env=bus.environment(project, GIVE_UP_MS=str(give_up_ms)),
        check=True,
    )
    return asking.stdout.splitlines()


def test_a_board_asks_and_writes_the_answers_and_what_would_be_refused_again(board: Path, bus: ExampleBus) -> None:
    with Listener(bus.broker, f"boards/{SESSION}") as listener:
        assert printed(board, bus, 'naïve "words" \x1b[2J', " ", "word " * 1000, "two") == [
            'naïve "words" [2J',
            "no answer, invalid_request: Error: Invalid request. The message is blank.",
            "no answer, message_too_large: it does not fit the buffer",
            "two",
        ]
        until(lambda: "online offline" in " ".join(heard.text for heard in listener.heard))


def test_a_refusal_is_waited_out(board: Path, bus: ExampleBus) -> None:
    assert printed(board, bus, "one", "two", project=LIMITED) == ["one", "two"]


def test_a_busy_session_and_nobody_are_given_up_when_the_time_is_over(board: Path, bus: ExampleBus) -> None:
    with bus.busy(SESSION):
        (line,) = printed(board, bus, "hello", give_up_ms=3000)
    assert line.startswith("no answer, session_busy: Please wait")
    (line,) = printed(board, bus, "hello", project="nobody", give_up_ms=500)
    assert line == "no answer, timeout: nobody has answered in time"


def test_it_compiles_with_the_example_of_its_secrets(tmp_path: Path) -> None:
    """Which has a certificate authority, so that the connection is encrypted."""
    shutil.copy(SKETCH / "arduino.ino", tmp_path)
    shutil.copy(SKETCH / "secrets.example.h", tmp_path / "secrets.h")
    stand_ins = [f"-I{STAND_INS}", "-include", "Arduino.h"]
    compiled("-fsyntax-only", f"-I{tmp_path}", *stand_ins, "-x", "c++", str(tmp_path / "arduino.ino"))
