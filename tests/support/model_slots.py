"""Models whose slots stand before engines that a test has made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferbus_worker.engines.base import Engine
from inferbus_worker.engines.slot import Model, Slot
from inferbus_worker.settings.models import SlotSettings


def model_of(
    name: str, engines: Sequence[Engine], clock: Callable[[], float], *, fallback: Sequence[str] = ()
) -> Model:
    """A model with a slot for each engine, all of them ready, as if they were servers across the network.

    As with the real ones, a slot's limit is what its engine runs at once.
    """
    model = Model(name, fallback, name)
    for number, engine in enumerate(engines, 1):
        place = SlotSettings(backend="vllm", url=f"http://host{number}:8000")
        slot = Slot(model, f"{name}/{number}", engine, place, host=f"host{number}", clock=clock)
        slot.became_ready()
        model.slots.append(slot)
    return model
