"""Trials 3, 4 and 8: a link that is half open, slow, sliced or reset, and a callback that raises."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, cast

import pytest

from inferbus_client.contract import topics
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions
from support.fault_proxy import Fault, FaultProxy
from support.listener import Listener
from support.models import hears_again
from support.mosquitto import Mosquitto, mosquitto_pub
from support.requester import Requester
from support.scripts import Running
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_OPTIONS: Final[dict[str, Any]] = {"rate_limit": "off", "queue_size": 5000}
_KEEPALIVE: Final = 5
#: Four losses within 15 seconds look like two workers of one id, and end a worker.
_PAUSE: Final = 5.5
_DYING_WORKER: Final = Path(__file__).with_name("dying_worker.py")


def test_a_half_open_link(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 3: everything is swallowed and nobody is told. The worker notices, and connects anew."""
    with (
        FaultProxy(own_broker.port) as proxy,
        WorkerProcess(cast("Mosquitto", proxy), project="half", keepalive=_KEEPALIVE, **_OPTIONS) as worker,
        Requester(own_broker, "half") as requester,
        Listener(own_broker, topics.presence(worker.id)) as presence,
    ):
        requester.send()
        requester.settle()
        proxy.fault = Fault(swallow=True)
        began = time.monotonic()
        until(lambda: "connection to the broker lost" in worker.log, 6 * _KEEPALIVE)
        seconds = time.monotonic() - began
        proxy.fault = Fault()
        until(lambda: hears_again(presence, worker.id, 1))
        lost = [requester.send() for _ in range(20)]
        until(lambda: all(requester.ledger.rows[request].ends for request in lost))
        report(3, f"noticed after {seconds:.1f} s at a keepalive of {_KEEPALIVE} s", requester.ledger)
        tally = requester.ledger.tally()
    assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)


def test_a_slow_sliced_and_reset_link(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 4: in slices of a few bytes, late, and cut in the middle. What a reset loses is lost, and nothing worse."""
    rounds, taken = size(3, 40), []
    with (
        FaultProxy(own_broker.port) as proxy,
        WorkerProcess(cast("Mosquitto", proxy), project="slow", **_OPTIONS) as worker,
        Requester(own_broker, "slow") as requester,
    ):
        for number in range(rounds):
            proxy.fault = Fault(delay=0.002, slice=random.randint(7, 400))  # noqa: S311 - no secret
            taken += timed(requester, 30)
            for _ in range(50):
                requester.send("x" * 5000)
            proxy.reset_all()
            reconnected(worker, number + 1)
            time.sleep(_PAUSE if rounds > 3 else 0)
        requester.settle_or_quiet(5)
        tally = requester.ledger.tally()
        p99 = 1000 * quantiles(taken, n=100)[98]
        report(4, f"{rounds} resets, p99 {p99:.0f} ms in slices of 7 to 400 bytes", requester.ledger)
        assert worker.process.poll() is None
    assert (tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0)


@pytest.fixture
def patient_broker() -> Iterator[Mosquitto]:
    """It drops nothing for a client that is slow to read; by default that is what is over 1,000 messages."""
    with Mosquitto("max_queued_messages 0") as broker:
        yield broker


def test_resets_with_acknowledgement_after_the_reply(
    patient_broker: Mosquitto, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Trial 4, --ack after-reply: what a reset loses comes again, and every request is answered."""
    rounds = size(3, 40)
    options = {**_OPTIONS, "ack": "after-reply", "state_dir": tmp_path, "simulated_first_token": "5ms"}
    with (
        FaultProxy(patient_broker.port) as proxy,
        WorkerProcess(cast("Mosquitto", proxy), project="resets", **options),
        Requester(patient_broker, "resets") as requester,
    ):
        requester.answer_with_another()
        for _ in range(50):
            requester.send()
        for number in range(rounds):
            time.sleep(_PAUSE if rounds > 3 else random.uniform(0.2, 0.6))  # noqa: S311 - no secret
            proxy.reset_all()
            heard_more(requester, 100)
            assert proxy.accepted > number + 1
        requester.stop_sending()
        requester.settle()
        report(4, f"{rounds} resets with --ack after-reply", requester.ledger)
        tally = requester.ledger.tally()
    assert (tally["lost"], tally["corrupt"], tally["leaked"]) == (0, 0, 0)


def heard_more(requester: Requester, count: int) -> None:
    wanted = requester.ledger.replies + count
    until(lambda: requester.ledger.replies >= wanted)


def reconnected(worker: WorkerProcess, times: int) -> None:
    until(lambda: worker.log.count("connected again") >= times)


def answered_again(requester: Requester) -> None:
    """A new connection is up before its subscriptions are: what is sent in between nobody hears."""

    def asked_and_answered() -> bool:
        row = requester.ledger.rows[requester.send()]
        with suppress(AssertionError):
            until(lambda: row.ends, 1)
        return bool(row.ends)

    until(asked_and_answered, 60)


def timed(requester: Requester, count: int) -> list[float]:
    """Seconds from request to answer, one after the other, once the worker hears again."""
    answered_again(requester)
    seconds = []
    for _ in range(count):
        began = time.monotonic()
        row = requester.ledger.rows[requester.send()]
        while not row.ends:
            assert time.monotonic() - began < 30, "no answer through the slow link"
            time.sleep(0.001)
        seconds.append(time.monotonic() - began)
    return seconds


class _HandledError(Exception):
    pass


def test_a_callback_that_raises_ends_no_thread(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 8, an exception: logged, and the next message is handled."""
    heard: list[bytes] = []

    def handle(message: Incoming) -> None:
        heard.append(message.payload)
        raise _HandledError

    link = Link(LinkOptions(BrokerUrl.parse(own_broker.url), "raising"), on_message=handle)
    link.connect(10)
    try:
        link.subscribe({"raising": 1})
        for number in range(50):
            link.publish("raising", b"%d" % number, qos=1)
        until(lambda: len(heard) == 50)
        assert link.is_alive
    finally:
        link.close()
    report(8, "50 callbacks raised: the thread lives, 50 of 50 messages handled")


def test_a_network_thread_that_ends_ends_the_worker(broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 8, a dead thread: the worker exits non-zero, for its supervisor to start it again."""
    arguments = ["serve", "--engine", "simulated", "--broker", broker.url, "--project", "dying", "--worker-id", "dying"]
    with Running([sys.executable, str(_DYING_WORKER), *arguments]) as worker:
        worker.says("ready: serving")
        began = time.monotonic()
        mosquitto_pub(broker, "dying/user_input/s1", "die")
        status = worker.wait(30)
        report(8, f"the network thread dies: exit {status} after {time.monotonic() - began:.1f} s")
        assert "the network thread has died" in worker.err
    assert status == 3
