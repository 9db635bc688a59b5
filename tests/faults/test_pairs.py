"""Trial 45: settings and faults drawn at random. One setting at a time never broke; pairs did.

Every draw has a broker and a worker of its own. Requests of many sizes and sessions run while the fault happens; then
the promises are counted: what is accepted is answered once, nothing is corrupt or on another's topic, what is bounded
stays in its bounds, SIGTERM ends in its time, with --ack after-reply nothing is lost, and afterwards it serves on.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Stats, decode_announcement
from support.fault_proxy import Fault, FaultProxy
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import SEED_VARIABLE, size
from support.waiting import PATIENCE, until
from support.worker import WorkerProcess

_REQUESTS: Final = 40
_AT_ONCE: Final = 3
_DRAIN: Final = 3.0
#: What promise 4 adds to the drain timeout, and four times as much again for a busy machine.
_GRACE: Final = 5 * 2.0

_SETTINGS: Final[dict[str, tuple[object, ...]]] = {
    "ack": ("on-receipt", "after-reply"),
    "reply_qos": (0, 1),
    "request_qos": (0, 1),
    "identity": ("none", "topic"),
    "mqtt_version": ("5", "3.1.1"),
    "keepalive": (5, 30),
    "workers": (1, 8, 64),
    "queue_size": (1, 10, 1000),
    "max_message_bytes": (256, 4096, 65536),
    "max_conversation_bytes": (256, 65536, 1048576),
    "max_outbound_bytes": (65536, 67108864),
    "max_sessions": (1, 1000),
    "max_history_bytes": (65536, 268435456),
    "retry_memory_bytes": (0, 16777216),
    "rate_limit": ("off", "3/1s"),
    "client_rate_limit": ("off", "20/1s"),
    "project_rate_limit": ("off", "20/1s"),
    "total_rate_limit": ("off", "20/1s"),
    "token_budget": ("off", "20000/60s"),
    "delta_interval": ("0s", "50ms"),
    "simulated_first_token": ("0s", "30ms"),
    "simulated_per_token": ("0s", "5ms"),
    "simulated_capacity": (1, 256),
}
_FIXED: Final[dict[str, Any]] = {"drain_timeout": f"{_DRAIN}s", "stats_interval": "300ms", "max_attempts": 1000}
#: Levels that a bound holds exactly; of outbound bytes the newest reply stays, however large it is.
_BOUNDED: Final = ("queue", "sessions", "historyBytes", "retryMemoryBytes")

#: Faults after which a message may come twice: a connection, a worker or a broker ended, and QoS 1 sends again.
_REPEATING: Final = frozenset({"reset", "swallowed", "SIGKILL", "SIGTERM", "broker killed"})
#: Faults in which nothing ends: nothing may be lost, whatever the settings.
_HARMLESS: Final = frozenset({"none", "slow link", "broker stalls", "junk"})
_FAULTS: Final = (*sorted(_HARMLESS), *sorted(_REPEATING))


@dataclass(frozen=True)
class Draw:
    """One combination. `seed` alone decides what is sent and when."""

    number: int
    fault: str
    qos: int
    settings: dict[str, Any]
    seed: int

    @property
    def at_least_once(self) -> bool:
        return self.settings["ack"] == "after-reply" and self.qos == 1

    @property
    def may_lose(self) -> bool:
        return self.fault == "broker killed" or not (self.fault in _HARMLESS or self.at_least_once)

    @property
    def scope(self) -> str:
        return "pairs/users/ann" if self.settings["identity"] == "topic" else "pairs"


def draw(number: int, seed: int) -> Draw:
    dice = random.Random(f"{seed}/{number}")  # noqa: S311 - no secret
    settings: dict[str, Any] = {name: dice.choice(values) for name, values in _SETTINGS.items()}
    if settings["ack"] == "after-reply":
        settings["request_qos"] = 1
    # Each fault in turn, so that a short run has them all but one.
    fault = _FAULTS[(number + seed) % len(_FAULTS)]
    return Draw(number, fault, dice.choice((0, 1, 1)), settings, dice.getrandbits(32))


def test_settings_and_faults_drawn_at_random(tmp_path: Path, report: Callable[..., None]) -> None:
    """Trial 45."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.getrandbits(32))
    draws = [draw(number, seed) for number in range(size(10, 200))]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        faults = [fault for each in pool.map(lambda each: broken(each, tmp_path), draws) for fault in each]
    held = len(draws) - len({fault.partition(":")[0] for fault in faults})
    report(45, f"{len(draws)} draws (seed {seed}): promises 1 to 5 held in {held}")
    assert not faults, "\n".join([f"{SEED_VARIABLE}={seed} draws these again:", *faults])


def broken(each: Draw, folder: Path) -> list[str]:
    """The promises that did not hold in a draw, in words; an exception is one of them."""
    try:
        complaints = try_out(each, folder / str(each.number))
    except Exception as error:  # noqa: BLE001 - the other draws go on, and this one is told with them
        complaints = [f"{type(error).__name__}: {error}"]
    return [f"draw {each.number}: {each.fault}, QoS {each.qos}: {said}; {each.settings}" for said in complaints]


def try_out(each: Draw, folder: Path) -> list[str]:
    folder.mkdir()
    dice = random.Random(each.seed)  # noqa: S311 - no secret
    options = {**each.settings, **_FIXED, "state_dir": folder, "project": ["pairs", "junk"]}
    with (
        Mosquitto("max_queued_messages 0") as broker,
        FaultProxy(broker.port) as proxy,
        WorkerProcess(cast("Mosquitto", _Both(broker, proxy)), **options) as worker,
        Listener(broker, topics.stats(worker.id)) as stats,
        Requester(broker, each.scope, qos=each.qos) as requester,
    ):
        send_some(requester, each, dice)
        seconds = _INJECT[each.fault](worker, proxy, broker, dice)
        send_some(requester, each, dice)
        settle(requester, each)
        tally, outcomes = requester.ledger.tally(), Counter(requester.ledger.outcomes)
        unended = [row for row in requester.ledger.rows.values() if row.accepted and not row.ends]
        serves = answers_again(requester)
        said = heard(stats)
        alive = worker.process.poll() is None
    complaints = [f"{name} {tally[name]}" for name in ("corrupt", "leaked") if tally[name]]
    if unended and each.fault in _HARMLESS:
        complaints.append(f"{len(unended)} accepted and not ended")
    if tally["lost"] and not each.may_lose:
        complaints.append(f"lost {tally['lost']} of {tally['sent']}")
    if tally["duplicate"] and each.fault not in _REPEATING:
        complaints.append(f"duplicate {tally['duplicate']}")
    if outcomes["engine_error"]:
        complaints.append(f"{outcomes['engine_error']} failed, on an engine that never fails")
    if unended and each.fault == "SIGTERM":
        complaints.append(f"{len(unended)} accepted and not ended at SIGTERM")
    if seconds > _DRAIN + _GRACE:
        complaints.append(f"SIGTERM took {seconds:.1f} s")
    if not alive:
        complaints.append("the worker ended")
    if not serves:
        complaints.append(f"nothing is answered afterwards, before it {dict(outcomes)}")
    return complaints + overfull(said)


def send_some(requester: Requester, each: Draw, dice: random.Random) -> None:
    """Requests small and large, too large, streamed, in sessions of their own and in shared ones."""
    largest = int(each.settings["max_message_bytes"])
    for _ in range(_REQUESTS // 2):
        text = dice.choice(("one two three", "x" * (largest // 2), "word " * 40 + "end", "x" * largest))
        requester.send(
            text,
            session=dice.choice((None, None, "shared", "other")),
            stream=dice.random() < 0.5,
            clientId=dice.choice(("ann", "bob")),
        )
        if dice.random() < 0.2:
            time.sleep(dice.uniform(0, 0.05))


def settle(requester: Requester, each: Draw) -> None:
    """Wait as long as it takes for what must come, and for what may be lost only while anything comes."""
    if each.may_lose:
        requester.settle_or_quiet(3)
        if each.fault == "SIGTERM":
            with suppress(AssertionError):
                until(lambda: all(row.ends for row in requester.ledger.rows.values() if row.accepted))
    else:
        requester.settle_or_quiet(PATIENCE)


def answers_again(requester: Requester) -> bool:
    """Whether a new request is answered, if only by a refusal of the rate limit."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        row = requester.ledger.rows[requester.send("still there", clientId="eve")]
        try:
            until(lambda row=row: row.ends, 2)  # type: ignore[misc]
        except AssertionError:
            continue
        return True
    return False


def heard(stats: Listener) -> list[Stats]:
    said = [decode_announcement(Stats, message.payload) for message in stats.heard]
    return [each for each in said if each is not None]


def overfull(said: list[Stats]) -> list[str]:
    return [
        f"{name} holds {level.now} of {level.bound}"
        for each in said
        for name, level in each.levels.items()
        if name in _BOUNDED and level.now > level.bound
    ]


class _Both:
    """A broker that is reached through a proxy by whom it serves, and directly by who only listens."""

    def __init__(self, broker: Mosquitto, proxy: FaultProxy) -> None:
        self.url = proxy.url
        self.host, self.port = broker.host, broker.port


def _nothing(_worker: WorkerProcess, _proxy: FaultProxy, _broker: Mosquitto, _dice: random.Random) -> float:
    return 0.0


def _slow(_worker: WorkerProcess, proxy: FaultProxy, _broker: Mosquitto, dice: random.Random) -> float:
    proxy.fault = Fault(delay=0.004, slice=dice.randint(40, 4000))
    time.sleep(0.5)
    proxy.fault = Fault(delay=0.001, slice=dice.randint(4000, 40_000))
    return 0.0


def _reset(_worker: WorkerProcess, proxy: FaultProxy, _broker: Mosquitto, dice: random.Random) -> float:
    for _ in range(2):
        time.sleep(dice.uniform(0, 0.3))
        proxy.reset_all()
    return 0.0


def _swallow(_worker: WorkerProcess, proxy: FaultProxy, _broker: Mosquitto, dice: random.Random) -> float:
    proxy.fault = Fault(swallow=True)
    time.sleep(dice.uniform(0.1, 0.5))
    proxy.reset_all()
    proxy.fault = Fault()
    return 0.0


def _stall(_worker: WorkerProcess, _proxy: FaultProxy, broker: Mosquitto, dice: random.Random) -> float:
    broker.pause()
    time.sleep(dice.uniform(0.2, 1.5))
    broker.resume()
    return 0.0


def _sigkill(worker: WorkerProcess, _proxy: FaultProxy, _broker: Mosquitto, dice: random.Random) -> float:
    time.sleep(dice.uniform(0, 0.2))
    worker.kill()
    worker.start()
    return 0.0


def _sigterm(worker: WorkerProcess, _proxy: FaultProxy, _broker: Mosquitto, dice: random.Random) -> float:
    time.sleep(dice.uniform(0, 0.2))
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(30)
    seconds = time.monotonic() - began
    worker.stop()
    worker.start()
    return seconds


def _kill_broker(_worker: WorkerProcess, _proxy: FaultProxy, broker: Mosquitto, dice: random.Random) -> float:
    time.sleep(dice.uniform(0, 0.2))
    broker.kill()
    time.sleep(dice.uniform(0, 0.5))
    broker.start()
    return 0.0


def _junk(_worker: WorkerProcess, _proxy: FaultProxy, broker: Mosquitto, dice: random.Random) -> float:
    with Listener(broker) as stranger:
        for _ in range(30):
            topic = dice.choice(
                ("junk/user_input", "junk/users/ann/user_input/s", "pairs/cancel/shared", "pairs/session")
            )
            stranger.publish(topic, dice.randbytes(dice.choice((0, 1, 100, 5000))), qos=dice.choice((0, 1)))
    return 0.0


_INJECT: Final[dict[str, Callable[[WorkerProcess, FaultProxy, Mosquitto, random.Random], float]]] = {
    "none": _nothing,
    "slow link": _slow,
    "reset": _reset,
    "swallowed": _swallow,
    "broker stalls": _stall,
    "SIGKILL": _sigkill,
    "SIGTERM": _sigterm,
    "broker killed": _kill_broker,
    "junk": _junk,
}
