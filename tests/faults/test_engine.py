"""Trials 15 to 19 with a real vLLM: requests that no engine can serve, and an engine that hangs or dies."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Final

import psutil
import pytest

from support.listener import Listener
from support.mosquitto import Mosquitto, mosquitto_sub
from support.needs import needs_module
from support.processes import assert_gone, family
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_SILENCE: Final = 3.0
#: Seconds after which a worker has loaded the demo model, more often than not.
_LOADED: Final = 30.0
_OPTIONS: Final[dict[str, Any]] = {
    "rate_limit": "off",
    "engine_silence": f"{_SILENCE}s",
    "max_message_bytes": 1_000_000,
}
#: A model that wanders on and does not find an end.
_ENDLESS: Final[dict[str, Any]] = {
    "temperature": 2, "topP": 1, "maxTokens": 100_000, "params": {"min_p": 0.0, "repetition_penalty": 2.0}
}  # fmt: skip
#: Each must fail alone, or be served: never more than its own request may come to harm.
_ABSURD: Final[tuple[dict[str, Any], ...]] = (
    {"params": {"n": 1_000_000}},
    {"params": {"min_tokens": 100}, "maxTokens": 1},
    {"params": {"logprobs": True, "top_logprobs": 100_000}},
    {"params": {"seed": 2**63}},
    {"params": {"seed": -1}},
    {"params": {"top_k": 10**9}},
    {"params": {"top_k": -7}},
    {"params": {"min_p": 2.0}},
    {"params": {"repetition_penalty": 1e-300}},
    {"params": {"repetition_penalty": 0}},
    {"params": {"presence_penalty": 1e9}},
    {"params": {"stop": ["x" * 5000] * 100}},
    {"params": {"stop": [""]}},
    {"params": {"response_format": {"type": "json_schema"}}},
    {"params": {"chat_template_kwargs": {"enable_thinking": True}}},
    {"temperature": 1e308},
    {"temperature": -1},
    {"topP": 0},
    {"maxTokens": 0},
    {"maxTokens": 10**9},
    {"maxTokens": "many"},
)


@pytest.fixture(scope="module")
def doomed(broker: Mosquitto) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """The workers of trials 17 and 12, which end them. They start together: a start keeps one core busy."""
    needs_module("vllm")
    workers = [WorkerProcess(broker, "demo", project=project, **_OPTIONS) for project in ("hang", "left")]
    with ExitStack() as running:
        with ThreadPoolExecutor() as pool:
            hang, left = pool.map(running.enter_context, workers)
        yield hang, left


@pytest.fixture
def requester(broker: Mosquitto) -> Iterator[Requester]:
    with Requester(broker, "engine", echo=False) as requester:
        yield requester


def core_of(worker: WorkerProcess) -> psutil.Process:
    """The process in which vLLM computes."""
    [core] = [process for process in family(worker.pid) if "EngineCore" in process.name()]
    return core


def ends(requester: Requester, request: str, timeout: float = 60) -> list[str]:
    """How the request ended, once it has."""
    return until(lambda: requester.ledger.rows[request].ends, timeout)


def test_absurd_sampling_fails_alone(
    real_worker: WorkerProcess, requester: Requester, report: Callable[..., None]
) -> None:
    """Trial 15: the requests beside them are all answered."""
    rounds = size(1, 50)
    absurd, good = [], []
    for fields in _ABSURD * rounds:
        absurd.append(requester.send("Hello", **fields))
        good.append(requester.send("Hello", maxTokens=5))
        ends(requester, good[-1])
    outcomes = {tuple(ends(requester, request)) for request in absurd}
    served = sum(ends(requester, request) == ["done"] for request in good)
    report(15, f"{len(absurd)} absurd requests: {served} of {len(good)} others answered")
    assert served == len(good)
    assert outcomes <= {("done",), ("invalid_request",)}
    assert real_worker.process.poll() is None


def test_a_prompt_over_the_capacity(
    real_worker: WorkerProcess, requester: Requester, report: Callable[..., None]
) -> None:
    """Trial 18: refused before the engine; the others notice nothing."""
    others = []
    began = time.monotonic()
    for number in range(size(5, 50)):
        long = requester.send(f"word {number} " * 50_000, maxTokens=5)
        others.append(requester.send("Hello", maxTokens=5))
        assert ends(requester, long) == ["context_too_long"]
        assert ends(requester, others[-1]) == ["done"]
    seconds = (time.monotonic() - began) / len(others)
    report(18, f"refused, {len(others)} of {len(others)} others answered, {1000 * seconds:.0f} ms a pair")
    assert real_worker.process.poll() is None


def test_cancel_and_deadline_stop_the_engine(
    broker: Mosquitto, real_worker: WorkerProcess, requester: Requester, report: Callable[..., None]
) -> None:
    """Trial 19: what nobody waits for is not computed any more."""
    core = core_of(real_worker)
    with Listener(broker) as publisher:
        late = [requester.send("go on", deadlineMs=200, **_ENDLESS) for _ in range(4)]
        outcomes = {tuple(ends(requester, request)) for request in late}
        assert ("deadline_exceeded",) in outcomes <= {("deadline_exceeded",), ("done",)}
        running = [requester.send("go on", session=f"c{number}", **_ENDLESS) for number in range(8)]
        until(lambda: all(requester.ledger.rows[request].accepted for request in running))
        time.sleep(0.1)
        began = time.monotonic()
        for number in range(8):
            publisher.publish(f"engine/cancel/c{number}", "")
        outcomes = {tuple(ends(requester, request)) for request in running}
        seconds = time.monotonic() - began
    # The model is small and quick: one may find its end before it is told to.
    assert ("cancelled",) in outcomes <= {("cancelled",), ("done",)}
    until(lambda: core.cpu_percent(0.25) < 20)
    idle = time.monotonic() - began
    report(19, f"8 cancelled: answered within {seconds:.2f} s, the engine idle {idle:.2f} s after the first")
    assert real_worker.process.poll() is None


@pytest.mark.vllm
def test_a_hanging_engine(broker: Mosquitto, doomed: tuple[WorkerProcess, ...], report: Callable[..., None]) -> None:
    """Trial 17: its health check sees nothing. Deadlines hold, the watchdog speaks, the process ends."""
    worker, _ = doomed
    with Requester(broker, "hang", echo=False) as requester:
        relatives = family(worker.pid)
        requester.send("Hello", maxTokens=5)
        requester.settle()
        core_of(worker).send_signal(signal.SIGSTOP)
        began = time.monotonic()
        hurried = requester.send("Hello", maxTokens=5, deadlineMs=1000)
        patient = [requester.send("Hello", maxTokens=5) for _ in range(4)]
        assert ends(requester, hurried) == ["deadline_exceeded"]
        status = worker.process.wait(60)
        seconds = time.monotonic() - began
        requester.settle()
        report(
            17, f"noticed after {seconds:.1f} s at an engine silence of {_SILENCE:g} s, exit {status}", requester.ledger
        )
        assert {tuple(ends(requester, request)) for request in patient} == {("engine_unavailable",)}
        assert status != 0
        assert "no answer to one token" in worker.log
        assert_gone(relatives)


@pytest.mark.vllm
def test_sigkill_leaves_no_engine(doomed: tuple[WorkerProcess, ...], report: Callable[..., None]) -> None:
    """Trial 12, the engine's processes: killed while it answers, and (in the long form) while it loads."""
    points, slowest = size(1, 20), 0.0
    _, worker = doomed
    for point in range(points):
        if point:
            worker.process = worker._popen()
            time.sleep(random.uniform(0, _LOADED))  # noqa: S311 - no secret
        slowest = max(slowest, seconds_until_gone(worker))
    report(12, f"{points} points with a real engine: engine processes left 0, the last gone after {slowest:.1f} s")


def seconds_until_gone(worker: WorkerProcess) -> float:
    """SIGKILL, and the time until nothing that the worker started runs any more."""
    relatives = family(worker.pid)
    began = time.monotonic()
    worker.process.kill()
    worker._reap(10)
    # An engine that still imports vLLM notices only when it has done that.
    assert_gone(relatives, 60)
    return time.monotonic() - began


def test_a_dying_engine(
    broker: Mosquitto, real_worker: WorkerProcess, requester: Requester, report: Callable[..., None]
) -> None:
    """Trial 16, which ends its worker."""
    relatives = family(real_worker.pid)
    core = core_of(real_worker)
    running = [requester.send("go on", **_ENDLESS) for _ in range(8)]
    until(lambda: all(requester.ledger.rows[request].accepted for request in running))
    time.sleep(0.1)
    core.kill()
    began = time.monotonic()
    status = real_worker.process.wait(60)
    seconds = time.monotonic() - began
    requester.settle()
    report(16, f"exit {status} after {seconds:.1f} s", requester.ledger)
    outcomes = {tuple(ends(requester, request)) for request in running}
    assert ("engine_unavailable",) in outcomes <= {("engine_unavailable",), ("done",)}
    assert status != 0
    state = json.loads(mosquitto_sub(broker, f"inferbus/workers/{real_worker.id}/status"))["state"]
    assert state == "offline"
    assert_gone(relatives)
