"""What `inferbus doctor` says of the store: whether it can be had, and what becomes of what is written there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from inferbus_client.errors import SettingsError
from inferbus_client.fleet.checks import CheckResult
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.errors import StoreError, StoreRefusedError
from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.facts import NO_EVICTION, Facts
from inferbus_worker.state.redis.places import store_of

#: Seconds that two clocks may be apart, and logs can still be read side by side.
_SKEW: Final = 1.0
_NAME: Final = "store"


def check_store(settings: Settings) -> Iterator[CheckResult]:
    """The checks of the store that these settings name."""
    try:
        url = store_of(settings)
        store = Store(url)
        began = time.monotonic()
        facts = store.first_look(f"inferbus:1:{{{settings.group}}}:")
    except SettingsError as error:
        yield CheckResult(_NAME, "failed", str(error))
        return
    except StoreError as error:
        remedy = "" if isinstance(error, StoreRefusedError) else "Is it running, and may this host reach it?"
        yield CheckResult(_NAME, "failed", error.reason, remedy)
        return
    took = (time.monotonic() - began) * 1000
    yield CheckResult(_NAME, "ok", f"{facts.server} answers at {url}; a connection takes {took:.0f} ms")
    yield _durability(facts)
    yield _replicas(facts)
    yield _memory(facts)
    yield _clock(facts)


def _durability(facts: Facts) -> CheckResult:
    name = "durability"
    remedy = "Where no request may be lost: appendonly yes and appendfsync always in the store's configuration."
    if facts.appendonly is None:
        return CheckResult(name, "info", "this user may not ask the store what it writes to its disk")
    if not facts.appendonly:
        text = "appendonly no: a store that ends forgets what came since its last snapshot, also what was accepted"
        return CheckResult(name, "warning", text, remedy)
    match facts.appendfsync:
        case "always":
            text = "appendonly yes, appendfsync always: what was accepted is on the store's disk"
            return CheckResult(name, "ok", text)
        case None:
            text = "appendonly yes; when that reaches the disk (appendfsync), this user may not ask"
            return CheckResult(name, "info", text)
        case "everysec":
            text = "appendonly yes, appendfsync everysec: a host that dies forgets its last second or two"
            return CheckResult(name, "warning", text, remedy)
    text = f"appendonly yes, appendfsync {facts.appendfsync}: a host that dies forgets what its system had not written"
    return CheckResult(name, "warning", text, remedy)


def _replicas(facts: Facts) -> CheckResult:
    name = "replicas"
    if not facts.replicas:
        return CheckResult(name, "info", "none: what is written is on this one server")
    text = (
        f"{facts.replicas}: what was accepted or ended is waited for until one of them has it (WAIT 1), 0.1 s at most; "
        "what none had in that time is lost where it then takes over"
    )
    return CheckResult(name, "ok", text)


def _memory(facts: Facts) -> CheckResult:
    name = "memory"
    if facts.policy is None or facts.memory is None:
        return CheckResult(name, "info", "this user may not ask how much memory the store may use")
    if facts.eviction is None:
        return CheckResult(name, "ok", f"{facts.memory}; when that is used up, requests are refused (noeviction)")
    # Where the memory is not bounded nothing is thrown away yet.
    return CheckResult(name, "failed" if facts.maxmemory else "warning", facts.eviction, NO_EVICTION)


def _clock(facts: Facts) -> CheckResult:
    name = "clock"
    if facts.skew is None:
        return CheckResult(name, "info", "this user may not ask the store for its time")
    way = "ahead of" if facts.skew > 0 else "behind"
    if abs(facts.skew) < _SKEW:
        return CheckResult(name, "ok", f"the store's is within {_SKEW:g} s of this host's")
    text = f"the store's is {abs(facts.skew):.1f} s {way} this host's: limits and leases go by the store's alone"
    return CheckResult(name, "warning", text, "Let both hosts keep their time by NTP, or logs cannot be compared.")
