"""Trial 41: the worker's way out is blocked or slow, while it drains, drops, reconnects, or acknowledges after replies.

Every request ends once, or comes again where it is acknowledged after its reply; and nothing stays open for ever.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import pytest

from inferbus_client.contract import topics
from inferbus_client.exits import Exit
from support.fault_proxy import FaultProxy
from support.listener import Listener
from support.models import hears_again
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_KB: Final = 1000
_DRAIN: Final = 30.0
#: What the promise adds to the drain timeout; five times that here, since the machine may be busy with other
#: things. What it takes is reported.
_GRACE: Final = 5 * 2.0
#: Four losses within 15 seconds look like two workers of one id, and end a worker.
_PAUSE: Final = 5.5
#: The ways in which requests are acknowledged and replies sent.
_WAYS: Final = {
    "on receipt, QoS 0": {"ack": "on-receipt", "reply_qos": 0},
    "on receipt, QoS 1": {"ack": "on-receipt", "reply_qos": 1},
    "after reply, QoS 0": {"ack": "after-reply", "reply_qos": 0},
    "after reply, QoS 1": {"ack": "after-reply", "reply_qos": 1},
}
#: Bytes a second, and so many answers of so many bytes; of the large ones the system's own buffers take less than half.
_SLOW: Final = {"little": (4 * _KB, size(15, 60), 100), "much": (size(1200, 400) * _KB, 100, 60_000)}
every_way = pytest.mark.parametrize("way", _WAYS.values(), ids=_WAYS)


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    """It holds what nobody has read yet; by default that is a thousand messages."""
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
def proxy(broker: Mosquitto) -> Iterator[FaultProxy]:
    with FaultProxy(broker.port) as proxy:
        yield proxy


@pytest.fixture
def options(tmp_path: Path, way: dict[str, Any]) -> dict[str, Any]:
    """A worker that is asked by many at once."""
    bounds = {"rate_limit": "off", "queue_size": 400, "workers": 64, "max_sessions": 1}
    return {**bounds, **way, "state_dir": tmp_path, "drain_timeout": f"{_DRAIN}s"}


@every_way
def test_answers_that_are_dropped_end_in_an_error(
    broker: Mosquitto, proxy: FaultProxy, options: dict[str, Any], report: Callable[..., None]
) -> None:
    """The way out is blocked until every answer has been made, and most had to go: each request still ends, once."""
    count, bound = size(200, 400), 1_000_000
    options |= {"max_outbound_bytes": bound, "stats_interval": "100ms", "simulated_first_token": "3s"}
    options |= {"workers": count, "simulated_capacity": count}  # else the first are answered before the last have come
    with (
        WorkerProcess(cast("Mosquitto", proxy), project="drop", **options) as worker,
        Requester(broker, "drop") as requester,
    ):
        for _ in range(count):
            requester.send("x" * 50_000)
        until(lambda: requester.ledger.heard_of == count)
        proxy.way_out = 0
        until(partial(_has_dealt_with, worker, count), 60, every=0.1)
        proxy.way_out = None
        requester.settle()
        tally, outcomes = requester.ledger.tally(), dict(requester.ledger.outcomes)
        report(
            41,
            f"blocked while {count} answers of 50 kB are made, bound {bound // _KB} kB: {outcomes}",
            requester.ledger,
        )
        assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)
        assert set(outcomes) == {"done", "overloaded"}
        late = [requester.send() for _ in range(300)]
        requester.settle()
        assert {end for request in late for end in requester.ledger.rows[request].ends} == {"done"}


@every_way
def test_a_slow_way_that_breaks(
    broker: Mosquitto, proxy: FaultProxy, options: dict[str, Any], report: Callable[..., None]
) -> None:
    """Only what was on its way, at QoS 0 and acknowledged on receipt, is lost with the connection."""
    count, rounds = 100, size(1, 10)
    may_lose = (options["ack"], options["reply_qos"]) == ("on-receipt", 0)
    options |= {"simulated_first_token": "500ms"}
    with (
        WorkerProcess(cast("Mosquitto", proxy), project="breaks", **options) as worker,
        Requester(broker, "breaks") as requester,
        Listener(broker, topics.presence(worker.id)) as presence,
    ):
        for number in range(rounds):
            asked = [requester.send("x" * 50_000) for _ in range(count)]
            until(partial(_has_heard_of, requester, (number + 1) * count))
            proxy.way_out = 1000 * _KB
            until(partial(_some_ended, requester, asked))
            proxy.reset_all()
            proxy.way_out = None
            until(partial(hears_again, presence, worker.id, number + 1))
            if may_lose:
                requester.settle_or_quiet(2)
            else:
                requester.settle()
            time.sleep(_PAUSE if rounds > 3 else 0)
        late = [requester.send() for _ in range(50)]
        until(lambda: all(requester.ledger.rows[request].ends for request in late))
        tally = requester.ledger.tally()
        report(
            41, f"{rounds} resets of a way of 1 MB/s, {options['ack']}, QoS {options['reply_qos']}", requester.ledger
        )
    assert (tally["corrupt"], tally["leaked"]) == (0, 0)
    assert tally["lost"] == 0 or may_lose
    # At QoS 1 MQTT itself sends a reply again whose acknowledgement was lost with the connection.
    assert tally["duplicate"] == 0 or options["ack"] == "after-reply" or options["reply_qos"] == 1


@pytest.mark.parametrize(("speed", "count", "length"), _SLOW.values(), ids=_SLOW)
@every_way
def test_sigterm_flushes_for_as_long_as_it_drains(
    broker: Mosquitto,
    proxy: FaultProxy,
    options: dict[str, Any],
    speed: int,
    count: int,
    length: int,
    report: Callable[..., None],
) -> None:
    """What is answered is heard: once it was given half a second to leave in."""
    options |= {"simulated_first_token": "500ms"}
    with (
        WorkerProcess(cast("Mosquitto", proxy), project="drain", **options) as worker,
        Requester(broker, "drain") as requester,
    ):
        for _ in range(count):
            requester.send("x" * length)
        until(lambda: requester.ledger.heard_of == count)
        proxy.way_out = speed
        worker.process.send_signal(signal.SIGTERM)
        seconds = seconds_to_end(worker, _DRAIN)
        requester.settle()
        tally = requester.ledger.tally()
        report(
            41,
            f"SIGTERM, {speed // _KB} kB/s: exit {worker.process.returncode} after {seconds:.1f} s",
            requester.ledger,
        )
    assert worker.process.returncode == 0
    assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)
    assert set(requester.ledger.outcomes) == {"done"}


@every_way
def test_sigterm_where_nothing_gets_out(
    broker: Mosquitto, proxy: FaultProxy, options: dict[str, Any], report: Callable[..., None]
) -> None:
    """Promise 4 holds. With --ack after-reply the next run answers; else what did not leave is lost with the worker."""
    count, drain = 30, 2.0
    options |= {"drain_timeout": f"{drain}s", "simulated_first_token": "500ms"}
    with (
        WorkerProcess(cast("Mosquitto", proxy), project="shut", **options) as worker,
        Requester(broker, "shut") as requester,
    ):
        for _ in range(count):
            requester.send("x" * 60_000)
        until(lambda: requester.ledger.heard_of == count)
        proxy.way_out = 0
        worker.process.send_signal(signal.SIGTERM)
        seconds = seconds_to_end(worker, drain)
        proxy.reset_all()
        proxy.way_out = None
        if options["ack"] == "after-reply":
            worker.stop()
            worker.start()
            requester.settle()
            assert set(requester.ledger.outcomes) == {"done"}
        figure = f"SIGTERM, blocked, {options['ack']}: ended after {seconds:.1f} s at a drain timeout of {drain:g} s"
        report(41, figure, requester.ledger)
        tally = requester.ledger.tally()
    assert (tally["corrupt"], tally["leaked"]) == (0, 0)


def test_sigterm_waits_for_nobody_where_nothing_is_owed(proxy: FaultProxy) -> None:
    """Only its farewell waits for the broker, and the Last Will says the same."""
    options: dict[str, Any] = {"project": "idle", "drain_timeout": "10m", "rate_limit": "off"}
    with (
        WorkerProcess(cast("Mosquitto", proxy), **options) as worker,
    ):
        proxy.way_out = 0
        worker.process.send_signal(signal.SIGTERM)
        seconds_to_end(worker, 0)


def test_a_second_sigterm_ends_the_flush(broker: Mosquitto, proxy: FaultProxy) -> None:
    options: dict[str, Any] = {"project": "forced", "drain_timeout": "10m", "simulated_first_token": "2s"}
    with (
        WorkerProcess(cast("Mosquitto", proxy), **options) as worker,
        Requester(broker, "forced") as requester,
    ):
        for _ in range(10):
            requester.send("x" * 60_000)
        until(lambda: requester.ledger.heard_of == 10)
        proxy.way_out = 0
        worker.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.process.wait(5)
        worker.process.send_signal(signal.SIGTERM)
        seconds_to_end(worker, 0)
        assert worker.process.returncode == Exit.INTERRUPTED


def seconds_to_end(worker: WorkerProcess, drain: float) -> float:
    """From now on; fails where promise 4 is broken by far."""
    began = time.monotonic()
    worker.process.wait(drain + _GRACE)
    return time.monotonic() - began


def _has_heard_of(requester: Requester, count: int) -> bool:
    return requester.ledger.heard_of >= count


def _has_dealt_with(worker: WorkerProcess, count: int) -> bool:
    """Whether so many have been answered or refused, by the latest stats in its log."""
    lines = [line for line in worker.log.splitlines() if line.startswith('{"event": "stats"') and line.endswith("}")]
    stats = [json.loads(line) for line in lines]
    return bool(stats) and stats[-1]["processed"] + sum(stats[-1]["rejected"].values()) >= count


def _some_ended(requester: Requester, requests: list[str]) -> bool:
    return any(requester.ledger.rows[request].ends for request in requests)
