"""Models by name: which one a request means, and which one stands in for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from inferbus_client.contract.presence import ModelStats
from inferbus_client.contract.wire import Failure
from inferbus_worker.engines.base import Engine
from inferbus_worker.engines.slot import Model
from inferbus_worker.settings.projects import ProjectSettings

#: Seconds after which to ask again where nobody knows better, and the least that is said.
_LEAST_WAIT: Final = 1.0
#: Nobody knows how long a model loads, from a second to many minutes: who asks each five seconds is served soon after
#: it is there, and a client's few retries outlast a small one's load.
LOADING: Final = Failure("engine_unavailable", retry_after_ms=5000)


class Registry:
    """The models of a worker. Any thread may use it.

    Args:
        models: by key.
        projects: what each says of its models.
    """

    def __init__(self, models: Mapping[str, Model], projects: Mapping[str, ProjectSettings]) -> None:
        self.models = models
        first = next(iter(models))
        self._default = {name: models[project.model or first] for name, project in projects.items()}
        self._allowed = {
            name: [models[key] for key in dict.fromkeys([project.model or first, *project.models])]
            for name, project in projects.items()
        }
        self._lines = {model.key: [models[key] for key in self._line_of(model)] for model in models.values()}

    @property
    def default(self) -> Model:
        """The first project's."""
        return next(iter(self._default.values()))

    @property
    def lanes(self) -> dict[str, list[str]]:
        """Per project the keys of the models that its requests may get to, those that stand in among them."""
        return {
            name: list(dict.fromkeys(one.key for model in allowed for one in self._lines[model.key]))
            for name, allowed in self._allowed.items()
        }

    def end_interval(self) -> None:
        """An interval ends now, for all slots' times."""
        for model in self.models.values():
            for slot in model.slots:
                slot.figures.end_interval()

    def readings(self, queued: Callable[[str], int]) -> dict[str, ModelStats]:
        """The figures of every model and slot as they stand.

        Args:
            queued: how many requests wait for a model, by its key.
        """
        return {
            model.name: ModelStats(
                queued=queued(model.key),
                state=model.state,
                slots={slot.name: slot.reading() for slot in model.slots},
            )
            for model in self.models.values()
        }

    def can_begin(self) -> bool:
        """Whether a model answers, or none is on its way and one starts when it is asked for."""
        states = [model.state for model in self.models.values()]
        return "ready" in states or ("stopped" in states and "starting" not in states)

    @property
    def will_serve(self) -> bool:
        """Whether a model answers now, or as soon as it has started."""
        return any(model.will_serve for model in self.models.values())

    def states(self) -> dict[str, str]:
        """What each model does, by its name; for presence."""
        return {model.name: model.state for model in self.models.values()}

    def meant(self, project: str, wanted: str | None) -> Model | Failure:
        """The model that a request asks for, or why it gets none."""
        if wanted is None:
            return self._default[project]
        for model in self._allowed[project]:
            if model.name == wanted:
                return model
        names = ", ".join(model.name for model in self._allowed[project])
        return Failure("invalid_request", f"model: this project's requests may name {names}.")

    def counting(self, key: str) -> Engine:
        """What counts tokens for a model: its own engine, or one of another's where it is elsewhere."""
        own = self.models[key]
        return (own if own.slots else next(model for model in self.models.values() if model.slots)).counting

    def serving(self, model: Model) -> Model | None:
        """The model itself or, while it cannot, the first of those that stand in for it and can."""
        for one in self._lines[model.key]:
            if one.will_serve:
                return one
        return None

    def unavailable(self, model: Model) -> Failure:
        """What a request hears while neither the model nor any that stands in for it can answer."""
        soonest = min(one.retry_after for one in self._lines[model.key])
        return Failure("engine_unavailable", retry_after_ms=_milliseconds(soonest))

    def without_slot(self, model: Model) -> Failure:
        """What a request hears that has waited in vain for a slot of a model which can answer."""
        return Failure("overloaded", retry_after_ms=_milliseconds(model.retry_after))

    def stand_ins(self, model: Model) -> Sequence[Model]:
        """Those that answer in its place while none of its slots can, nearest first."""
        return self._lines[model.key][1:]

    def _line_of(self, model: Model) -> list[str]:
        """The keys of a model and of those that stand in for it, and for these, nearest first."""
        line = [model.key]
        for key in line:  # which grows meanwhile
            line += [other for other in self.models[key].fallback if other not in line]
        return line


def _milliseconds(wait: float) -> int:
    return round(max(wait if math.isfinite(wait) else 0.0, _LEAST_WAIT) * 1000)
