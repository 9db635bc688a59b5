"""How long the requests of a worker that was killed wait until another one begins them anew."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Final

from .mqtt import Connection
from .plan import Plan
from .processes import Child, broker, redis, simulated_worker

LEASE: Final = 10.0
SLOTS: Final = 16
#: Seconds.
ANSWER: Final = 3.0

_MOST_ROUNDS: Final = 3
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 60.0


@dataclass
class _Heard:
    """What is said of requests, by their sessions."""

    missing: int
    waiting: int
    failed: int = 0
    runs: dict[str, float] = field(default_factory=dict)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, session: str, payload: bytes) -> None:
        reply = json.loads(payload)
        if reply.get("run", 0):
            self.runs.setdefault(session, time.perf_counter())
        elif reply["type"] == "accepted":
            self.waiting -= 1
            if not self.waiting:
                self.accepted.set()
        if reply["type"] in {"done", "error"}:
            self.missing -= 1
            self.failed += reply["type"] == "error"
            if not self.missing:
                self.ended.set()


def measure(plan: Plan) -> list[list[float]]:
    """Of each round, the seconds from the kill to the first reply of each second run. See `fleet.measure`.

    One worker lives through all rounds: a lease is reaped by who has been there for one lease.
    """
    found = []
    slots = str(SLOTS)
    options = ["--workers", slots, "--max-workers", slots, "--simulated-capacity", slots, "--lease", f"{LEASE:g}s"]
    paced = ["--simulated-first-token", f"{ANSWER:g}s"]
    with broker() as port, redis() as (url, _), simulated_worker(port, "--state", url, *options, *paced) as stays:
        stays.wait_for('"ready:', _START_SECONDS)
        for number in plan.rounds_of("fleet, a take-over"):
            if number == _MOST_ROUNDS:
                break
            name = f"bench-killed-{number}"
            with simulated_worker(port, "--worker-id", name, "--state", url, *options, *paced) as killed:
                killed.wait_for('"ready:', _START_SECONDS)
                found.append(asyncio.run(_gaps(port, killed, number)))
                plan.say(f"taken over after {min(found[-1]):.1f} to {max(found[-1]):.1f} s")
    return found


async def _gaps(port: int, killed: Child, number: int) -> list[float]:
    requests = 2 * SLOTS
    heard = _Heard(missing=requests, waiting=requests)
    connection = await Connection.open(port, "general/assistant_response/+", heard.hear)
    for place in range(requests):
        body = {"message": "hello", "reply": "json", "requestId": f"r{number}-{place}"}
        connection.publish(f"general/user_input/killed-{number}-{place}", json.dumps(body).encode())
    await asyncio.wait_for(heard.accepted.wait(), _START_SECONDS)
    # At another moment between two renewals in each round.
    await asyncio.sleep(ANSWER * (number + 1) / (_MOST_ROUNDS + 2))
    killed.process.kill()
    at = time.perf_counter()
    await asyncio.wait_for(heard.ended.wait(), _END_SECONDS)
    connection.close()
    if heard.failed:
        raise ValueError(f"{heard.failed} requests failed, of the worker that was killed or of the other")
    if not heard.runs:
        raise ValueError("the worker that was killed had nothing under way")
    return [begun - at for begun in heard.runs.values()]
