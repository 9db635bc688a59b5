"""The log's formats: whole lines, colors only where they are wanted, and neither secrets nor strangers' words."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

SECRET = "hunter2-do-not-print"  # noqa: S105 - no secret of anybody's
STYLES = ["console", "json", "auto"]

#: A failure with a secret in a local variable, in the exception's text, in that of its cause, and in a note.
FAILING = f"""
import logging, sys
from inferbus_worker import logs

def fail(secret):
    local = {{"token": secret}}
    try:
        raise KeyError(local["token"])
    except KeyError as error:
        error.add_note(local["token"])
        raise ValueError("unusable: " + local["token"]) from error

logs.configure(sys.argv[1], sys.argv[2])
log = logging.getLogger("inferbus.turn")
try:
    fail("{SECRET}")
except ValueError:
    log.exception("a turn failed")
"""

TALKING = f"""
import logging, sys
from inferbus_worker import logs

logs.configure(sys.argv[1], sys.argv[2])
log = logging.getLogger("vllm.v1.engine")
log.warning("%s tokens of %s fit, 100%%", 7, "the model")
logs.be_discreet()
log.error("Dumping scheduler output: %s of %-5.2f", "{SECRET}", 1.5)
logging.getLogger("asyncio").error("Task exception was never retrieved\\nfuture: <ValueError('{SECRET}')>")
logging.getLogger("inferbus.turn").error("failed for %s", "a reason of ours")
"""


def run(script: str, style: str, level: str = "info", **variables: str) -> str:
    """What the script writes to a standard error that is no terminal."""
    done = subprocess.run(
        [sys.executable, "-c", script, style, level], capture_output=True, text=True, check=True, env=environ(variables)
    )
    assert done.stdout == ""
    return done.stderr


def on_a_terminal(script: str, style: str, **variables: str) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, style, "info"], stderr=theirs, env=environ({"TERM": "xterm", **variables})
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65_536):
            written += chunk
    except OSError:  # how a terminal says that the other side is gone
        pass
    finally:
        os.close(ours)
        assert process.wait(60) == 0
    return written.decode()


def environ(variables: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM"}}
    return kept | variables


def in_json(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("style", STYLES)
def test_a_traceback_says_where_and_what_kind_and_no_value(style: str) -> None:
    written = run(FAILING, style)
    assert SECRET not in written
    assert "a turn failed" in written
    assert "in fail" in written
    assert "KeyError" in written
    assert "ValueError" in written
    assert len(written.splitlines()) < 30


@pytest.mark.parametrize("style", STYLES)
def test_for_finding_faults_the_text_is_whole_and_still_no_local_variable(style: str) -> None:
    written = run(FAILING, style, "debug")
    assert f"unusable: {SECRET}" in written
    assert "'token':" not in written


@pytest.mark.parametrize("style", STYLES)
def test_once_strangers_are_served_others_messages_are_not_filled_in(style: str) -> None:
    written = run(TALKING, style)
    assert "7 tokens of the model fit, 100%" in written
    assert "Dumping scheduler output: " in written
    assert "Task exception was never retrieved" in written
    assert SECRET not in written
    assert "failed for a reason of ours" in written


def test_for_finding_faults_others_messages_are_filled_in() -> None:
    assert SECRET in run(TALKING, "json", "debug")


def test_every_line_of_json_is_an_object() -> None:
    for script in (FAILING, TALKING):
        assert all({"event", "level", "logger"} <= line.keys() for line in in_json(run(script, "json")))


@pytest.mark.parametrize("style", ["console", "auto"])
def test_a_terminal_gets_colors_unless_it_cannot_or_should_not_show_them(style: str) -> None:
    assert "\x1b[" in on_a_terminal(TALKING, style)
    assert "\x1b[" in on_a_terminal(TALKING, style, NO_COLOR="")
    assert "\x1b[" not in on_a_terminal(TALKING, style, NO_COLOR="1")
    assert "\x1b[" not in on_a_terminal(TALKING, style, TERM="dumb")
    assert "\x1b[" not in on_a_terminal(TALKING, style, TERM="")
    assert "\x1b[" not in on_a_terminal(FAILING, style, TERM="dumb")


def test_a_library_that_brought_a_handler_logs_like_all_others() -> None:
    script = """
import logging, sys
from inferbus_worker import logs

logs.configure(sys.argv[1], sys.argv[2])
library = logging.getLogger("transformers")
library.addHandler(logging.StreamHandler())
library.propagate = False
logs.take_over()
logging.getLogger("transformers.tokenization").warning("too long")
"""
    (line,) = in_json(run(script, "json"))
    assert (line["logger"], line["event"]) == ("transformers.tokenization", "too long")


def test_a_pipe_gets_none() -> None:
    assert "\x1b[" not in run(TALKING, "console")
