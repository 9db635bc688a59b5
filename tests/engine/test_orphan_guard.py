"""The guard alone, between processes that do nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CHILD = """
from inferbus_worker.engines.vllm.orphan_guard import register
import os, signal, sys, threading
before = signal.getsignal(signal.SIGINT)
register()
register()
assert signal.getsignal(signal.SIGINT) is before
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
names = [thread.name for thread in threading.enumerate()]
print(os.getpid(), names.count("orphan-guard"), os.getpgid(0) == os.getpid(), flush=True)
threading.Event().wait()
"""
PARENT = f"""
import os, signal, subprocess, sys
from inferbus_worker.engines.vllm.orphan_guard import GROUP_SIGNALS, WORKER_PID, register
os.environ[WORKER_PID] = str(os.getpid())
register()
assert os.getpgid(0) == os.getpid()
signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
child.wait()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    yield process
    process.kill()
    process.communicate()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _alive(pid)


def test_the_child_dies_with_the_worker_and_not_by_signals_to_its_group(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    pid, guards, own_group = parent.stdout.readline().split()
    assert (guards, own_group) == ("1", "True")
    os.killpg(parent.pid, signal.SIGINT)  # the parent has blocked it; the child is in another group
    assert _alive(int(pid))
    parent.kill()
    assert _gone(int(pid))


def test_a_child_that_comes_too_late_dies_at_once() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    late = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=os.environ | {"INFERBUS_WORKER_PID": str(ended.pid)},
        check=False,
        timeout=30,
        capture_output=True,
    )
    assert late.returncode == -signal.SIGKILL
