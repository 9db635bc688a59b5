"""The fleet's simulation against what queueing theory knows, and its tables in docs/fleet.md against itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from fleet_simulation import measured, page
from fleet_simulation.plan import Costs, Plan
from fleet_simulation.run import quantile, simulate
from fleet_simulation.timeline import Server, Timeline
from support.scripts import ROOT

FREE: Final = Costs(*[0.0] * len(Costs()))
#: So many sessions that those who ask are not missed among those who think: as good as Poisson arrivals.
MANY: Final = 1_000_000


def erlang_c(load: float, servers: int) -> float:
    """The share of those who come that have to wait, of M/M/c."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def closed_rate(sessions: int, think: float, service: float, servers: int) -> float:
    """Answers a second of so many sessions that ask, wait and think: M/M/c with a finite source, state by state."""
    weights = [1.0]
    for there in range(sessions):
        ends = min(there + 1, servers) / service
        weights.append(weights[-1] * (sessions - there) / think / ends)
    busy = sum(weight * min(there, servers) for there, weight in enumerate(weights))
    return busy / sum(weights) / service


@pytest.mark.parametrize(("workers", "slots", "load"), [(1, 1, 0.5), (1, 4, 0.8), (4, 1, 0.8), (4, 4, 0.75)])
def test_workers_that_share_a_queue_are_one_of_all_their_slots(workers: int, slots: int, load: float) -> None:
    """M/M/c: however blindly the broker deals, a request waits for the first slot of any worker."""
    servers, service = workers * slots, 1.0
    rate = load * servers / service
    figures = simulate(
        Plan(
            workers,
            slots=slots,
            answer=service,
            sessions=MANY,
            think=MANY / rate,
            trip=0.0,
            queue_size=100_000,
            requests=60_000,
            costs=FREE,
        )
    )
    mean_wait = erlang_c(load * servers, servers) * service / (servers * (1 - load))
    assert figures.wait_mean == pytest.approx(mean_wait, rel=0.12)
    assert figures.rate == pytest.approx(rate, rel=0.03)
    assert figures.slots == pytest.approx(load, rel=0.03)


def test_sessions_that_wait_do_not_ask() -> None:
    """The closed form for a finite source: 40 sessions that think for 2 s, 10 slots of 1 s."""
    figures = simulate(Plan(2, slots=5, answer=1.0, sessions=40, think=2.0, trip=0.0, requests=40_000, costs=FREE))
    assert figures.rate == pytest.approx(closed_rate(40, 2.0, 1.0, 10), rel=0.03)


def test_who_is_in_the_system_is_whom_little_s_law_counts() -> None:
    plan = Plan(2, answer=0.5, sessions=100, think=1.0, requests=40_000)
    figures = simulate(plan)
    assert figures.rate * (figures.response_mean + plan.think) == pytest.approx(plan.sessions, rel=0.03)


def test_the_store_is_as_busy_as_its_calls_are_many_and_long() -> None:
    """The utilisation law, where requests come one by one and each has its calls for itself."""
    plan = Plan(4, answer=0.5, sessions=MANY, think=MANY / 50.0, requests=30_000)
    figures = simulate(plan)
    costs = plan.costs
    held = figures.rate * plan.answer
    chores = plan.workers * (2 * (costs.call + costs.beat) + costs.call + costs.reap + 0.4 * costs.call)
    expected = figures.rate * costs.of_a_request + chores + 0.4 * held * costs.renew
    # A slot that is free again asks for the next request, whether there is one or not.
    assert figures.store == pytest.approx(expected + figures.rate * costs.call, rel=0.05)


def test_a_store_that_is_full_holds_up_everybody_and_what_goes_together_goes_faster() -> None:
    slow = Costs().as_measured(0.002)  # 500 requests/s, where the slots could do 1,600
    figures = simulate(Plan(10, sessions=400, requests=20_000, costs=slow))
    assert figures.store > 0.99
    assert 0.9 / 0.002 < figures.rate < 1.5 / 0.002


def test_one_server_s_waits_are_those_of_m_d_1() -> None:
    import random  # noqa: PLC0415 - for this one

    chance, timeline = random.Random(1), Timeline()  # noqa: S311 - the same each time
    server, load = Server(timeline), 0.7

    def come() -> None:
        server.ask(1.0)
        timeline.after(chance.expovariate(load), come)

    come()
    while len(server.waits) < 100_000:
        timeline.step()
    assert sum(server.waits) / len(server.waits) == pytest.approx(load / (2 * (1 - load)), rel=0.05)
    assert server.busy == pytest.approx(load * timeline.now, rel=0.02)


def test_what_finds_no_room_is_refused_and_the_rest_is_answered() -> None:
    figures = simulate(Plan(1, slots=1, answer=1.0, sessions=MANY, think=MANY / 2.0, queue_size=10, requests=20_000))
    assert figures.refused == pytest.approx(0.5, rel=0.1)
    assert figures.rate == pytest.approx(1.0, rel=0.05)


def test_the_same_plan_has_the_same_figures() -> None:
    plan = Plan(2, sessions=100, think=1.0, requests=3_000)
    assert simulate(plan) == simulate(plan)
    assert simulate(plan) != simulate(plan._replace(seed=2))


def test_quantiles_are_values_that_there_were() -> None:
    assert quantile([], 0.99) == 0.0
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 1.0) == 3.0


def test_what_was_measured_is_found_and_what_was_not_is_not_made_up(tmp_path: Path) -> None:
    file = tmp_path / "benchmarks.json"
    file.write_text("[]")
    assert measured.seconds_of_a_request(file) is None
    assert measured.rates(file) == {}
    rows = [["1 worker", "150.0 (149.0 to 151.0)"], ["2 workers", "1,300"], [measured.REDIS, "1,120.5 (99.0 to 130.0)"]]
    section = {"suite": "fleet", "header": ["what", measured.RATE], "rows": rows}
    file.write_text(json.dumps([{"suite": "bus", "header": [], "rows": []}, section]))
    assert measured.seconds_of_a_request(file) == pytest.approx(0.0011205)
    assert measured.rates(file) == {1: "150.0 (149.0 to 151.0)", 2: "1,300"}
    assert Costs().as_measured(0.0011205).of_a_request == pytest.approx(0.0011205)


@pytest.mark.slow
def test_the_tables_are_what_the_simulation_says_now() -> None:
    text = page.PAGE.read_text()
    assert text.count("<!-- simulated: ") == 4
    assert page.written(text) == text, "run scripts/simulate-fleet --write"


@pytest.mark.slow
def test_the_command_says_what_a_fleet_needs() -> None:
    run = subprocess.run(
        [ROOT / "scripts/simulate-fleet", "--workers", "2", "--sessions", "50", "--think", "1s", "--requests", "2000"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for words in ("answers/s", "slots busy", "Redis busy", "Redis' memory"):
        assert words in run.stdout


@pytest.mark.parametrize(
    ("option", "value"), [("--trip", "xus"), ("--answer", "2x"), ("--think", "-5"), ("--slots", "x")]
)
def test_a_mistyped_value_is_named_in_words(option: str, value: str) -> None:
    command = [sys.executable, "-m", "fleet_simulation", f"{option}={value}"]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"argument {option}: {value!r} is no " in done.stderr
