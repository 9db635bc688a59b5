"""`inferbus`, whose simulated engine `mortal` dies of the message `die`, with all that it has under way."""

from __future__ import annotations

import runpy
from typing import Any

from inferbus_worker.engines.base import ChatCall, EngineDeadError, Generation, OnDelta
from inferbus_worker.engines.simulated import SimulatedEngine

generate = SimulatedEngine.generate
under_way: list[Any] = []


def generate_or_die(self: SimulatedEngine, call: ChatCall, on_delta: OnDelta | None = None) -> Generation:
    generation = generate(self, call, on_delta)
    if self.model != "mortal":
        return generation
    under_way.append(generation)
    if call.messages[-1]["content"] == "die":
        self.death = EngineDeadError("it was told to die")
        for one in under_way:
            one.fail(self.death)
    return generation


if __name__ == "__main__":
    SimulatedEngine.generate = generate_or_die  # type: ignore[method-assign]
    runpy.run_module("inferbus_worker.demo.lifeline", run_name="__main__")
