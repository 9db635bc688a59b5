"""`scripts/demo`, the script itself, as a newcomer runs it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pexpect
import psutil
import pytest

from inferbus_client.contract import topics
from support.gateway import told
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.needs import needs_module, needs_program
from support.processes import assert_gone, descendants, family
from support.scripts import ROOT, Running
from support.terminal import end
from support.waiting import LOADING, until

DEMO = "scripts/demo"
#: What a terminal is sent when the line editor is ready for the next line (bracketed paste is on).
LINE_EDITOR = r"\x1b\[\?2004h"
SIMULATED = (DEMO, "--engine", "simulated")


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process and no temporary folder, whichever way the demo ends."""
    before = descendants()
    # Others may run demos too. Not pytest's folder for the test: vLLM makes sockets here, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="inferbus-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield
        assert_gone([process for process in descendants() if process not in before])
        assert not list(Path(folder).glob("inferbus-demo-*"))


def _with_an_engine(demo: Running) -> list[psutil.Process]:
    """The demo's processes, once they are more than the demo and its worker; empty until then."""
    assert demo.process.poll() is None, demo.err
    processes = family(demo.process.pid)
    return processes if len(processes) > 2 else []


@pytest.mark.vllm
def test_two_messages_are_one_conversation_on_real_vllm() -> None:
    needs_module("vllm")
    with Running([DEMO, "--once", "My name is Zorvek", "--once", "What is my name?"]) as demo:
        status = demo.wait(LOADING)
        replies = demo.out.splitlines()
        assert status == 0, demo.err
        assert len(replies) == 2
        assert "Zorvek" in replies[1]


def test_beside_its_chat_is_openais_api_and_a_page() -> None:
    needs_module("uvicorn")
    demo = pexpect.spawn(DEMO, ["--engine", "simulated"], cwd=ROOT, dimensions=(24, 120), encoding="utf-8", timeout=60)
    try:
        demo.expect(r"A page is at http://127\.0\.0\.1:(\d+),")
        port = int(demo.match.group(1))
        demo.expect(LINE_EDITOR)
        assert told(port, "/")[0] == 200
        assert told(port, "/v1/models")[1]["data"][0]["id"] == "general"
        demo.sendeof()
        demo.expect(pexpect.EOF)
    finally:
        demo.close()
    assert demo.exitstatus == 0


def test_it_says_what_it_is_doing_and_prints_only_replies() -> None:
    with Running([*SIMULATED, "--once", "hello", "--once", "again"]) as demo:
        assert demo.wait(60) == 0, demo.err
        assert demo.out.splitlines() == ["hello", "again"]
        assert "Starting an embedded MQTT broker" in demo.err
        assert "Starting the simulated engine: done" in demo.err


@pytest.mark.parametrize("engine", [pytest.param("vllm", marks=pytest.mark.vllm), "simulated"])
def test_a_second_backend_answers_beside_the_first(engine: str) -> None:
    """MLX's server, which the worker starts and stops: both are asked, each in a conversation of its own."""
    needs_module("mlx_lm")
    if engine == "vllm":
        needs_module("vllm")
    texts = ["--once", "My name is Zorvek", "--once", "What is my name?"]
    with Running([DEMO, "--engine", engine, "--backend", "mlx", *texts]) as demo:
        assert demo.wait(LOADING) == 0, demo.err
        replies = demo.out.splitlines()
        assert [reply.partition(":")[0] for reply in replies] == ["demo", "demo-mlx"] * 2
        assert "Zorvek" in replies[3]
        assert engine == "simulated" or "Zorvek" in replies[2]
        assert "and a server of MLX's: done" in demo.err


def test_two_workers_are_one_group_and_either_goes_on_with_the_conversation() -> None:
    for program in ("redis-server", "mosquitto"):
        needs_program(program)
    texts = ["--once", "My name is Zorvek", "--once", "What is my name?"]
    with Running([*SIMULATED, "--workers", "2", *texts]) as demo:
        assert demo.wait(60) == 0, demo.err
        assert demo.out.splitlines() == ["My name is Zorvek", "What is my name?"]
        assert "Starting a Redis, which the workers share: done" in demo.err


def test_a_second_backend_that_is_not_installed_is_said_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['mlx_lm'] = None\n")
    command = [str(ROOT / ".venv/bin/inferbus"), "demo", "--engine", "simulated", "--backend", "mlx", "--once", "hello"]
    with Running(command, env={"PYTHONPATH": str(tmp_path)}) as demo:
        assert demo.wait(60) == 1
        assert "MLX is not here" in demo.err
        assert "pip install mlx-lm" in demo.err
        assert "Traceback" not in demo.err


@pytest.mark.vllm
def test_ctrl_c_while_the_model_loads_leaves_nothing() -> None:
    needs_module("vllm")
    with Running([DEMO, "--once", "hello"]) as demo:
        demo.says("Loading vLLM")
        started = until(lambda: _with_an_engine(demo), LOADING)
        demo.press_ctrl_c()
        assert demo.wait(60) == 130
        assert_gone(started)
        assert demo.out == ""
        assert "Traceback" not in demo.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
@pytest.mark.slow
def test_however_it_is_killed_the_worker_goes_too(
    number: signal.Signals, status: int, own_broker: Mosquitto, tmp_path: Path
) -> None:
    command = [*SIMULATED, "--broker", own_broker.url, "--once", "hello"]
    # Three seconds for the warm-up, and three in which the demo waits for its answer and the signal comes. Nobody
    # tidies up after SIGKILL, so the temporary folder is one that pytest removes.
    env = {"INFERBUS_SIMULATED_FIRST_TOKEN": "3s", "TMPDIR": str(tmp_path)}
    with Listener(own_broker, "general/user_input/#") as listener, Running(command, env=env) as demo:
        listener.wait(1, 60)
        started = family(demo.process.pid)
        assert len(started) >= 2
        demo.process.send_signal(number)
        assert demo.wait(60) == status
        assert_gone(started, 20)


def test_a_running_broker_is_used_and_left_as_it_was(own_broker: Mosquitto) -> None:
    with Listener(own_broker, "#") as listener:
        with Running([*SIMULATED, "--broker", own_broker.url, "--once", "hello"]) as demo:
            assert demo.wait(60) == 0, demo.err
            assert demo.out == "hello\n"
        assert any(heard.topic.startswith("general/assistant_response/") for heard in listener.heard)
    with Listener(own_broker, topics.presence("+"), "end") as late:
        late.publish("end", "")
        assert [heard.topic for heard in late.wait(1)] == ["end"]


@pytest.mark.slow
def test_no_broker_there_is_said_in_one_sentence(own_broker: Mosquitto) -> None:
    url = own_broker.url
    own_broker.stop()
    with Running([*SIMULATED, "--broker", url, "--once", "hello"]) as demo:
        assert demo.wait(60) == 3
        assert "Traceback" not in demo.err
        assert url in demo.err


@pytest.mark.vllm
def test_a_model_that_is_not_there_shows_the_end_of_the_workers_log(tmp_path: Path) -> None:
    needs_module("vllm")
    missing = tmp_path / "no-such-model"
    with Running([DEMO, "--model", str(missing), "--once", "hello"], env={"TMPDIR": str(tmp_path)}) as demo:
        assert demo.wait(120) == 1
        assert "no-such-model" in demo.err
        [log] = tmp_path.glob("inferbus-demo-*/worker.log")
        assert str(log) in demo.err


def test_a_person_chats_and_leaves(tmp_path: Path) -> None:
    env = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "XDG_STATE_HOME": str(tmp_path)}
    child = pexpect.spawn(str(ROOT / DEMO), list(SIMULATED[1:]), env=env, encoding="utf-8", timeout=60)
    try:
        child.expect("publish to general/user_input at mqtt://127.0.0.1:")
        child.expect(LINE_EDITOR)
        started = family(child.pid)
        child.send("hello\r")
        child.expect("hello.*hello")  # once typed, once answered
        child.expect(LINE_EDITOR)
        child.send("/quit\r")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0
        assert_gone(started)
    finally:
        end(child)
