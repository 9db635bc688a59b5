"""Trial 42: a worker that is told to stop ends in its time, whatever it is doing at that moment (promise 4)."""

from __future__ import annotations

import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client.exits import Exit
from support.gate import SUBSCRIBE, Gate, swallows
from support.mosquitto import Mosquitto, mosquitto_pub
from support.nowhere import black_hole, mute, nobody
from support.scripts import Running
from support.trials import size
from support.waiting import until

_DRAIN: Final = 1.0
#: What the promise adds to the drain timeout; five times that here, since the machine may be busy with other
#: things. What it takes is reported.
_GRACE: Final = 5 * 2.0
_OPTIONS: Final = ("--rate-limit", "off", "--drain-timeout", f"{_DRAIN}s", "--broker-timeout", "60s")
#: From the first byte of a warm-up to its end: longer than any test.
_SLOW: Final = ("--simulated-first-token", "10m")
#: An answer of three words takes longer than any test.
_LONG_ANSWERS: Final = ("--simulated-per-token", "10m")
_HANDLES_SIGTERM: Final = 1 << signal.SIGTERM - 1

#: What a worker is to be told beside `_OPTIONS`, and what returns when the moment has come.
Moment = tuple[tuple[str, ...], Callable[[Running], None]]
Place = AbstractContextManager[Moment]


@contextmanager
def nowhere(address: AbstractContextManager[str]) -> Iterator[Moment]:
    with address as url:
        yield ("--broker", url), listens_to_signals


def to_nobody(_broker: Mosquitto) -> Place:
    return nowhere(nobody())


def into_a_black_hole(_broker: Mosquitto) -> Place:
    return nowhere(black_hole())


def to_a_silent_peer(_broker: Mosquitto) -> Place:
    return nowhere(mute())


def to_a_silent_tls_peer(_broker: Mosquitto) -> Place:
    return nowhere(mute("mqtts"))


@contextmanager
def to_one_who_hangs_up(broker: Mosquitto) -> Iterator[Moment]:
    with Gate(broker.port, deaf=True) as gate:
        yield ("--broker", gate.url), listens_to_signals


@contextmanager
def subscribing(broker: Mosquitto) -> Iterator[Moment]:
    with Gate(broker.port, swallows(SUBSCRIBE)) as gate:
        yield ("--broker", gate.url), lambda _worker: asked_to_subscribe(gate)


@contextmanager
def loading(broker: Mosquitto) -> Iterator[Moment]:
    yield ("--broker", broker.url, *_SLOW), lambda worker: worker.says("connected to")


@contextmanager
def serving(broker: Mosquitto) -> Iterator[Moment]:
    yield ("--broker", broker.url), is_ready


@contextmanager
def answering(broker: Mosquitto) -> Iterator[Moment]:
    def busy(worker: Running) -> None:
        is_ready(worker)
        for session in range(20):
            mosquitto_pub(broker, f"signals/user_input/{session}", "one two three")

    yield ("--broker", broker.url, *_LONG_ANSWERS), busy


@contextmanager
def reconnecting(broker: Mosquitto) -> Iterator[Moment]:
    with Gate(broker.port) as gate:

        def cut_off(worker: Running) -> None:
            is_ready(worker)
            gate.rule = swallows()
            gate.hang_up()
            worker.says("connection to the broker lost")

        yield ("--broker", gate.url), cut_off


def listens_to_signals(worker: Running) -> None:
    def handled() -> bool:
        with suppress(FileNotFoundError, StopIteration):
            lines = Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
            caught = next(line for line in lines if line.startswith("SigCgt"))
            return bool(int(caught.split()[1], 16) & _HANDLES_SIGTERM)
        return False

    until(handled, 60)


def is_ready(worker: Running) -> None:
    worker.says("ready: serving")


def asked_to_subscribe(gate: Gate) -> None:
    until(lambda: any(packet.kind == SUBSCRIBE for packet in gate.packets))


def told_to_stop(
    place: Callable[[Mosquitto], Place], broker: Mosquitto, numbers: tuple[signal.Signals, ...]
) -> tuple[int, float]:
    """Start a worker, wait for the moment, tell it to stop; its exit status, and the seconds that it took."""
    command = [sys.executable, "-m", "inferbus_worker", "serve", "--engine", "simulated", "--alongside"]
    command += ["--project", "signals", "--worker-id", f"signals-{uuid.uuid4().hex[:8]}", *_OPTIONS]
    with place(broker) as (options, reached), Running([*command, *options]) as worker:
        reached(worker)
        time.sleep(random.uniform(0, 0.5))  # noqa: S311 - no secret
        began = time.monotonic()
        for number in numbers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)
                time.sleep(0.2)
        status = worker.wait(60)
        return status, time.monotonic() - began


@pytest.mark.parametrize(
    "place",
    [
        to_nobody,
        into_a_black_hole,
        to_a_silent_peer,
        to_a_silent_tls_peer,
        to_one_who_hangs_up,
        subscribing,
        loading,
        serving,
        answering,
        reconnecting,
    ],
    ids=lambda place: place.__name__.replace("_", " "),
)
@pytest.mark.alone
def test_signals_at_every_moment(
    own_broker: Mosquitto, report: Callable[..., None], place: Callable[[Mosquitto], Place], request: Any
) -> None:
    """SIGTERM and SIGINT, once and twice."""
    told: list[tuple[signal.Signals, ...]] = [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)]
    told += [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)] if size(0, 1) else []
    slowest = 0.0
    for _ in range(size(1, 5)):
        with ThreadPoolExecutor(len(told)) as pool:
            ends = list(pool.map(lambda numbers: told_to_stop(place, own_broker, numbers), told))
        for numbers, (status, seconds) in zip(told, ends, strict=True):
            slowest = max(slowest, seconds)
            assert seconds < _DRAIN + _GRACE
            assert status in ({Exit.OK} if len(numbers) == 1 else {Exit.OK, Exit.INTERRUPTED})
    report(42, f"{request.node.callspec.id}: ended after {slowest:.1f} s at most, at a drain timeout of {_DRAIN:g} s")
