"""Several models with real servers under a budget that holds one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferbus_worker.engines.base import ChatCall, Sampling
from inferbus_worker.engines.managed.engine import ManagedEngine
from inferbus_worker.engines.managed.keeper import Keeper
from inferbus_worker.engines.managed.memory import MemoryBudget
from inferbus_worker.engines.managed.places import places_of
from inferbus_worker.settings.models import ModelSettings
from support.processes import GUARDS, assert_gone, descendants, family
from support.tiny_engine import TinyEngine
from support.waiting import until

TINY = Path(__file__).parents[1] / "support" / "tiny_server.py"


class Models:
    """Models of a name each, on demand, one at a time; and the simplest of slot tables."""

    def __init__(self, *names: str) -> None:
        command = [sys.executable, str(TINY), "--port", "{port}", "--fork-grandchild"]
        place = {"backend": "vllm", "manage": {"command": command}, "memory": "1 GiB", "when": "on-demand"}
        model = ModelSettings.model_validate(place)
        places = [at for name in names for at in places_of(name, model) if at is not None]
        self.engines = {name: ManagedEngine(model.places[0], TinyEngine, name) for name in names}
        self.lock = threading.Lock()
        self.asked = dict.fromkeys(names, 0)
        self.leased = dict.fromkeys(names, 0)
        self.used = dict.fromkeys(names, 0.0)
        self.keeper = Keeper(MemoryBudget(1 << 30, places), self.engines, self)

    def waiting(self, model: str) -> int:
        return self.asked[model]

    def active(self, slot: str) -> int:
        with self.lock:
            return self.leased[slot]

    def used_at(self, slot: str) -> float:
        return self.used[slot]

    def _lease(self, model: str) -> bool:
        with self.lock:
            if not self.keeper.is_open(model):
                return False
            self.leased[model] += 1
            self.asked[model] -= 1
            return True

    def ask(self, model: str, timeout: float = 60) -> str:
        """One request, which waits for its turn."""
        self.asked[model] += 1
        self.keeper.wake()
        until(lambda: self._lease(model), timeout)
        try:
            call = ChatCall([{"role": "user", "content": f"I am {model}"}], Sampling(0, 1, 100))
            return self.engines[model].generate(call).wait(time.monotonic() + timeout).text
        finally:
            with self.lock:
                self.leased[model] -= 1
                self.used[model] = time.monotonic()


@pytest.fixture
def models() -> Iterator[Models]:
    models = Models("a", "b")
    models.keeper.start()
    yield models
    models.keeper.stop(20)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slot-")]


def test_two_asked_in_turns_under_a_budget_for_one_both_answer(models: Models) -> None:
    before = set(descendants())  # other tests' servers
    for model, other in ("ab", "ba", "ab"):
        assert models.ask(model) == f"I am {model} "
        assert (models.engines[model].state, models.engines[other].state) == ("ready", "stopped")
    running = set(descendants()) - before
    assert len(running) == GUARDS + 2, "one server's guards, it, and what that left behind"
    models.keeper.stop(20)
    assert_gone([*running])


def test_requests_at_the_same_time_join_one_start(models: Models) -> None:
    before = set(descendants())
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(models.ask("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == ["I am a "] * 8
    assert len(set(descendants()) - before) == GUARDS + 2


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no subreapers: what has left the group is not found")
def test_sigkill_of_the_owner_leaves_nothing_of_any() -> None:
    own_path = os.environ | {"PYTHONPATH": str(TINY.parents[1])}
    owner = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True, env=own_path)
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "I am a \n"
        everybody = family(owner.pid)
        assert len(everybody) == 1 + GUARDS + 2
        owner.send_signal(signal.SIGKILL)
        assert_gone(everybody)


def main() -> None:
    models = Models("a")
    models.keeper.start()
    print(models.ask("a"), flush=True)  # noqa: T201 - for the test that waits for it
    threading.Event().wait()


if __name__ == "__main__":
    main()
