"""No engine process outlives its worker, and none heeds a signal that is meant for the worker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import psutil
else:
    psutil = pytest.importorskip("psutil", reason="comes with vLLM")

DRIVER = Path(__file__).with_name("engine_driver.py")
#: Safety nets, for a busy machine: a process that the guard kills is gone at once; one that still imports vLLM notices
#: when it has done that.
SOON, AFTER_IMPORTS = 60.0, 120.0

pytestmark = pytest.mark.usefixtures("vllm_needed")


class Worker:
    """The driver process, in a process group of its own."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ib-", ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            # Not where an engine of this process may have its sockets.
            env={name: value for name, value in os.environ.items() if name != "VLLM_RPC_BASE_PATH"}
            | {"TMPDIR": self._folder.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._root = psutil.Process(self.process.pid)
        self._descendants: set[psutil.Process] = set()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def hear(self, wanted: str) -> str:
        """The next line that begins with `wanted`; a driver that ends instead fails the test."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(wanted):
                return line.strip()
        pytest.fail(f"the worker ended without saying {wanted!r}")

    def engine_processes(self) -> list[psutil.Process]:
        """Every process that the worker ever had below it and that still lives."""
        for ancestor in [self._root, *self._descendants]:
            with contextlib.suppress(psutil.Error):
                self._descendants.update(ancestor.children(recursive=True))
        return [process for process in self._descendants if is_alive(process)]

    def sockets(self) -> list[Path]:
        """Those in the file system."""
        return [path for path in Path(self._folder.name).rglob("*") if path.is_socket()]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        assert eventually(lambda: not self.engine_processes(), AFTER_IMPORTS)
        self._folder.cleanup()


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


class Supply:
    """As many workers as there are tests for them, two of which start at a time: a start keeps one core busy."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.started: deque[Worker] = deque()

    def take(self) -> Worker:
        while self._left and len(self.started) < 2:
            self._left -= 1
            self.started.append(Worker())
        return self.started.popleft()


@pytest.fixture(scope="module")
def supply(request: pytest.FixtureRequest) -> Iterator[Supply]:
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    supply = Supply(sum(test.module is request.module and "worker" in test.fixturenames for test in tests))
    yield supply
    for worker in supply.started:  # not taken, since the run was cut short
        worker.end()


@pytest.fixture
def worker(supply: Supply) -> Iterator[Worker]:
    worker = supply.take()
    try:
        worker.hear("ready")
        yield worker
    finally:
        worker.end()


@pytest.fixture
def loading() -> Iterator[Worker]:
    worker = Worker()
    try:
        assert eventually(lambda: len(worker.engine_processes()) >= 2, AFTER_IMPORTS)
        yield worker
    finally:
        worker.end()


def test_signals_to_the_group_truncate_nothing_and_sigkill_leaves_nothing(worker: Worker) -> None:
    assert len(worker.engine_processes()) >= 2
    worker.tell("generate 300")
    worker.hear("text")
    os.killpg(worker.process.pid, signal.SIGTERM)
    os.killpg(worker.process.pid, signal.SIGINT)
    assert worker.hear("f") == "finished length"
    worker.process.kill()
    assert eventually(lambda: not worker.engine_processes(), SOON)


def test_a_dead_engine_fails_what_runs_and_says_so(worker: Worker) -> None:
    worker.tell("generate")
    worker.hear("text")
    [core] = [process for process in worker.engine_processes() if "EngineCore" in process.name()]
    core.kill()
    assert worker.hear("f") == "failed EngineDeadError"
    worker.tell("watch")
    worker.hear("dead")
    worker.tell("stop")
    worker.hear("stopped")
    assert worker.process.wait(SOON) == 0
    assert eventually(lambda: not worker.engine_processes(), SOON)
    assert not worker.sockets()


def test_a_stop_fails_what_runs_and_leaves_nothing(worker: Worker) -> None:
    assert worker.sockets()
    worker.tell("generate")
    worker.hear("text")
    worker.tell("stop")
    assert worker.hear("f") == "failed EngineDeadError"
    worker.hear("stopped")
    assert worker.process.wait(SOON) == 0
    assert eventually(lambda: not worker.engine_processes(), SOON)
    assert not worker.sockets()


def test_an_idle_engines_death_is_noticed(worker: Worker) -> None:
    [core] = [process for process in worker.engine_processes() if "EngineCore" in process.name()]
    worker.tell("watch")
    core.kill()
    worker.hear("dead")


def test_a_stop_while_the_model_loads_is_a_start_that_failed_in_words(loading: Worker) -> None:
    loading.process.terminate()
    assert loading.hear("failed to start") == "failed to start: The engine was stopped while it started."
    assert loading.process.wait(SOON) == 0
    assert eventually(lambda: not loading.engine_processes(), SOON)
    assert not loading.sockets()


def test_sigkill_while_the_model_loads_leaves_nothing(loading: Worker) -> None:
    loading.process.kill()
    assert eventually(lambda: not loading.engine_processes(), AFTER_IMPORTS)
