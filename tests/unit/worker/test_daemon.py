"""The stop times of the worker's rooms fit into what promise 4 leaves for them; and when it calls itself ready."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inferbus_worker import daemon
from inferbus_worker.bus import attempts
from inferbus_worker.engines.limit import FixedLimit
from inferbus_worker.engines.registry import Registry
from inferbus_worker.engines.remote import loop
from inferbus_worker.engines.slots import SlotTable
from inferbus_worker.ops.readiness import Readiness
from inferbus_worker.settings.projects import ProjectSettings
from support.model_slots import model_of
from support.rooms import FakeClock, ScriptedEngine
from support.waiting import PATIENCE


def test_the_steps_of_a_shutdown_fit_into_the_grace() -> None:
    """Each takes its whole time where something hangs; the guard must not end the process before the last of them."""
    steps = (daemon._JOIN, daemon._FLUSH, daemon._DISCONNECT, attempts._CLOSE, daemon._ENGINE_STOP)
    assert sum(steps) <= daemon._GRACE
    assert daemon._GRACE < 2
    assert loop._LEAST_TIME <= daemon._LOOP_STOP < daemon._ENGINE_STOP


class Hangs:
    """Takes all the time that it is given to stop; what stops at once with others waits for them, and takes it once."""

    def __init__(self, pass_: Callable[[float], None], at_once: int = 1) -> None:
        self.given: float | None = None
        self._pass = pass_
        self._together = threading.Barrier(at_once)

    def beside(self) -> Hangs:
        """Another one, which must stop at the same time."""
        other = Hangs(lambda _seconds: None)
        other._together = self._together
        return other

    def stop(self, timeout: float) -> None:
        self.given = timeout
        self._together.wait(PATIENCE)
        self._pass(timeout)


@pytest.mark.parametrize("timeout", [0.5, 0.0])
def test_engines_servers_and_loop_share_the_time_to_stop(timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other they took three times as long, and the guard ended the process."""
    clock = FakeClock()
    monkeypatch.setattr(daemon, "time", SimpleNamespace(monotonic=clock))
    one = cast("Any", daemon.Daemon.__new__(daemon.Daemon))
    one._lives = Hangs(clock.pass_, at_once=2)
    one._keeper = one._lives.beside()
    one._lineup = cast("Any", type("Lineup", (), {"loop": Hangs(clock.pass_)}))
    one._stop_engines(timeout)
    assert one._keeper.given == one._lives.given == max(0.0, timeout - daemon._LOOP_STOP)
    assert one._lineup.loop.given == pytest.approx(min(timeout, daemon._LOOP_STOP))


class Said:
    """Presences, in the place of the bus."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.capacities: list[int] = []

    def announce(self, state: str, *, capacity: int, **_: object) -> None:
        self.states.append(state)
        self.capacities.append(capacity)


def test_a_worker_whose_last_model_goes_away_is_not_ready_until_one_is_back() -> None:
    clock, said = FakeClock(), Said()
    models = {name: model_of(name, [ScriptedEngine()], clock) for name in ("a", "b")}
    registry = Registry(models, {"general": ProjectSettings(model="a", models=["b"])})
    readiness = Readiness(registry, SlotTable(models, clock=clock), said.announce, clock)
    for states in (("ready", "ready"), ("ready", "down"), ("down", "down"), ("down", "starting"), ("ready", "ready")):
        for model, state in zip(models.values(), states, strict=True):
            model.slots[0].state = cast("Any", state)
        readiness.look()
        readiness.look()
    assert said.states == ["ready", "ready", "loading", "ready", "ready"]


def test_a_limit_that_moves_is_announced_but_not_each_of_its_steps(caplog: pytest.LogCaptureFixture) -> None:
    """Presence said for ever what the limit had been when its model became ready."""
    clock, said = FakeClock(), Said()
    models = {"a": model_of("a", [ScriptedEngine(capacity=40)], clock)}
    readiness = Readiness(
        Registry(models, {"general": ProjectSettings()}), SlotTable(models, clock=clock), said.announce, clock
    )
    for step in range(20):
        models["a"].slots[0].limit = FixedLimit(10 + step)
        readiness.look()
        clock.pass_(1)
    assert said.capacities == [10, 15, 20, 25]
    clock.pass_(4)
    for _ in range(20):  # what it has come to in the end is said, once
        readiness.look()
        clock.pass_(1)
    assert said.capacities == [10, 15, 20, 25, 29]
    assert "no model answers" not in caplog.text
