"""An engine with a real server process of its own: it comes up, ends, comes back, and goes."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from inferbus_worker.engines.base import BackendError, ChatCall, EngineStartError, Sampling
from inferbus_worker.engines.managed import backoff
from inferbus_worker.engines.managed.engine import ManagedEngine
from inferbus_worker.settings.models import SlotSettings
from support.needs import needs_module
from support.processes import GUARDS, assert_gone, descendants
from support.tiny_engine import TinyEngine
from support.waiting import PATIENCE, until

TINY = Path(__file__).parents[1] / "support" / "tiny_server.py"
MAKE = Callable[..., ManagedEngine]


def call(text: str = "one two three", max_tokens: int = 1000) -> ChatCall:
    return ChatCall([{"role": "user", "content": text}], Sampling(0, 1, max_tokens))


def servers() -> list[psutil.Process]:
    """The guards that this process has started, and what is below them."""
    guards = [process for process in descendants() if "guard.py" in " ".join(process.cmdline())]
    return list(dict.fromkeys([*guards, *(process for guard in guards for process in guard.children(recursive=True))]))


@pytest.fixture
def make() -> Iterator[MAKE]:
    with ExitStack() as running:

        def make(*flags: str, backend: str = "llama.cpp", start_timeout: float = 30, **fields: Any) -> ManagedEngine:
            command = [sys.executable, str(TINY), "--port", "{port}", "--parallel", "{concurrency}", *flags]
            manage = {"command": command, "start_timeout": start_timeout}
            settings = SlotSettings.model_validate({"backend": backend, "manage": manage, **fields})
            engine = ManagedEngine(settings, TinyEngine, "tiny")
            running.callback(engine.stop, 10)
            return engine

        yield make

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slot-")]


def test_it_starts_its_server_answers_and_leaves_nothing(make: MAKE) -> None:
    engine = make("--start-delay", "0.5", concurrency=3)
    assert (str(engine.state), engine.capacity, engine.memory_bytes) == ("stopped", 3, None)
    engine.start()
    assert str(engine.state) == "ready"
    assert engine.generate(call()).wait(None).text == "one two three "
    assert (engine.capacity, engine.context_tokens) == (4, 4096), "as the inner engine says"
    assert (engine.memory_after_load or 0) > 1_000_000
    assert (engine.memory_bytes or 0) > 1_000_000
    running = servers()
    assert any("--parallel 3" in " ".join(process.cmdline()) for process in running)
    engine.stop(10)
    assert_gone(running, 1)
    assert str(engine.state) == "stopped"
    assert engine.context_tokens == 4096, "what the last one said"


def test_it_can_be_started_again(make: MAKE) -> None:
    engine = make()
    for _ in range(2):
        engine.start()
        assert engine.generate(call()).wait(None).usage.completion_tokens == 3
        engine.stop(10)
        with pytest.raises(BackendError, match="is not there: stopped") as failed:
            engine.generate(call()).wait(None)
        assert failed.value.fault == "connection"


def test_what_is_under_way_fails_when_the_server_dies_and_the_server_comes_back(make: MAKE) -> None:
    engine = make("--per-word", "0.05")
    engine.start()
    states: list[str] = []
    engine.changed = lambda: states.append(engine.state)
    began = threading.Event()
    generation = engine.generate(call("word " * 1000), lambda *_: began.set())
    assert began.wait(PATIENCE)
    servers()[-1].kill()
    with pytest.raises(BackendError) as failed:
        generation.wait(time.monotonic() + PATIENCE)
    assert failed.value.fault in ("connection", "cut")
    until(lambda: states == ["failed", "starting", "ready"])
    assert engine.generate(call()).wait(None).text == "one two three "
    assert engine.death is None


def test_a_crash_loop_backs_off_and_is_said_once_a_minute(make: MAKE, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "inferbus.managed")
    engine = make("--crash-after", "2")  # time to be ready first, also on a busy machine
    failures: list[float] = []
    engine.changed = lambda: failures.append(time.monotonic()) if engine.state == "failed" else None
    engine.begin()
    until(lambda: len(failures) == 3)
    assert engine.trouble == "The server of tiny is gone: it ended with status 3."
    assert failures[1] - failures[0] > 1
    [line] = caplog.records
    assert "The server of tiny is gone: it ended with status 3. It is started again in 1 s" in line.getMessage()


def test_pauses_double_up_to_half_a_minute_and_begin_anew_after_a_good_while() -> None:
    pauses = backoff.Backoff()
    for expected in (1, 2, 4, 8, 16, 30, 30, 30):
        assert max(1, expected / 2) <= pauses.after(0.1) <= expected
    assert pauses.after(31) == 1
    assert pauses.after(0) <= 2


def test_a_server_that_ends_while_it_starts_says_why(make: MAKE) -> None:
    settings = {"command": [sys.executable, "-c", "print('loading'); raise ValueError('no such model')", "{port}"]}
    engine = ManagedEngine(SlotSettings.model_validate({"backend": "vllm", "manage": settings}), TinyEngine, "phi")
    with pytest.raises(EngineStartError) as failed:
        engine.start()
    assert (
        str(failed.value)
        == "The server of phi did not start: it ended with status 1, after: ValueError: no such model."
    )
    assert engine.state == "stopped"
    del make


def test_a_server_that_never_listens_is_given_up_in_time(make: MAKE) -> None:
    engine = make("--start-delay", "600", start_timeout=1)
    with pytest.raises(EngineStartError, match="gave no answer within 1 s: nothing listens at its port"):
        engine.start()
    assert not servers()


def test_one_that_listens_and_never_answers_is_not_ready(make: MAKE) -> None:
    engine = make("--mute", start_timeout=2)
    with pytest.raises(EngineStartError, match="gave no answer within 2 s"):
        engine.start()
    assert not servers()


def test_a_stop_ends_a_start_under_way(make: MAKE) -> None:
    engine = make("--start-delay", "600", "--ignore-sigterm")
    raised: list[EngineStartError] = []

    def start() -> None:
        try:
            engine.start()
        except EngineStartError as error:
            raised.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    until(lambda: len(servers()) == GUARDS + 1)
    began = time.monotonic()
    engine.stop(3)
    starting.join(PATIENCE)
    assert [str(error) for error in raised] == ["The server was stopped while it started."]
    assert time.monotonic() - began < PATIENCE
    assert not servers()


def test_a_port_that_another_took_first_is_given_up_for_the_next(make: MAKE, tmp_path: Path) -> None:
    engine = make("--taken-once", str(tmp_path / "taken"))
    engine.start()
    assert (tmp_path / "taken").exists()
    assert engine.generate(call()).wait(None).text == "one two three "


def test_a_server_that_hangs_can_be_started_again(make: MAKE) -> None:
    engine = make("--ignore-sigterm")
    engine.start()
    [*_, before] = servers()
    states: list[str] = []
    engine.changed = lambda: states.append(engine.state)
    engine.restart()
    assert_gone([before])
    until(lambda: states == ["failed", "starting", "ready"])
    assert engine.generate(call()).wait(None).text == "one two three "


@pytest.mark.vllm
@pytest.mark.slow
def test_vllms_own_server_is_started_and_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_module("vllm")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    options = {"enforce_eager": "true", "dtype": "float32"}
    settings = SlotSettings.model_validate(
        {"backend": "vllm", "path": "demo", "concurrency": 16, "options": options, "context": 512}
    )
    engine = ManagedEngine(settings, lambda url: TinyEngine(url, "phi"), "phi")
    try:
        engine.start()
        running = servers()
        assert len(running) >= GUARDS + 2, "the guards, the server and its engine"
        assert engine.generate(call("Hello", 5)).wait(time.monotonic() + 60).usage.completion_tokens > 0
        assert (engine.memory_after_load or 0) > 100_000_000
    finally:
        engine.stop(20)
    assert_gone(running)
