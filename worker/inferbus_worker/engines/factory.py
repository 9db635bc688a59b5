"""Which models, slots and engines the settings ask for. None is started here."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from inferbus_client.errors import ConflictError, SettingsError
from inferbus_client.settings.flags import flags_of
from inferbus_client.settings.sources import nearest
from inferbus_worker.engines.base import Engine
from inferbus_worker.engines.simulated import Behaviour, SimulatedEngine
from inferbus_worker.engines.slot import Model, Slot
from inferbus_worker.seldom import Once
from inferbus_worker.settings.models import Concurrency, ModelSettings, SlotSettings
from inferbus_worker.settings.vllm_options import arguments
from inferbus_worker.settings.worker import Settings

if TYPE_CHECKING:
    from inferbus_worker.engines.managed.engine import ManagedEngine
    from inferbus_worker.engines.managed.memory import MemoryBudget
    from inferbus_worker.engines.remote.loop import RemoteLoop


@dataclass(frozen=True)
class Lineup:
    """What serves.

    Attributes:
        models: by key.
        loop: where the engines across the network run, if there are any.
        managed: those whose servers are ours to start and stop, by slot.
        budget: which of these may run, if there are any.
    """

    models: Mapping[str, Model]
    loop: RemoteLoop | None = None
    managed: Mapping[str, ManagedEngine] = field(default_factory=dict)
    budget: MemoryBudget | None = None


def only(engine: Engine, concurrency: Concurrency | None = None) -> Lineup:
    """One model in one slot."""
    model = Model("")
    model.slots.append(Slot(model, "engine", engine, concurrency=concurrency))
    return Lineup({"": model})


def make_lineup(
    settings: Settings, model: str | None, options: Sequence[str], places: Mapping[str, str] | None = None
) -> Lineup:
    """The models that the settings ask for.

    Args:
        settings: the worker's.
        model: a folder, a hub name, `demo`, or the name of a model at `--backend`; the simulated engine needs none.
        options: what the command line gave beyond our own options; they are the engine's.
        places: where the options in the file stand, by name.

    Raises:
        click.UsageError: an option that no one knows.
        SettingsError: a key cannot be read, or a model that is started here could never fit.
    """
    if settings.models:
        _refuse(options, "models: in the file names the models, and each slot has options of its own")
        has_readers = settings.http is not None
        return _lineup(settings.reached_models, settings.memory_budget, with_metrics=has_readers)
    if settings.backend is not None:
        _refuse(options, f"--backend {settings.backend} takes none of vLLM's; a slot's options stand below models:")
        given = {"url": settings.url, "api_key_env": settings.api_key_env, "api_key_file": settings.api_key_file}
        said = {name: value for name, value in given.items() if value is not None}
        one = ModelSettings(backend=settings.backend, model=model, concurrency=settings.concurrency, **said)
        return _lineup({str(model): one})
    return only(make_engine(settings, model, options, places), settings.concurrency)


def make_engine(
    settings: Settings, model: str | None, options: Sequence[str], places: Mapping[str, str] | None = None
) -> Engine:
    """The engine that the settings ask for, not yet started.

    Args:
        settings: the worker's.
        model: a folder, a hub name or `demo`; the simulated engine needs none.
        options: what the command line gave beyond our own options; they are the engine's.
        places: where the options in the file stand, by name.

    Raises:
        click.UsageError: an option that no one knows.
    """
    if settings.engine == "vllm":
        from inferbus_worker.engines.vllm.engine import VllmEngine  # noqa: PLC0415 - a heavy import, for this engine alone

        given = [*arguments(settings.vllm), *options]
        return VllmEngine(model or "demo", given, places, with_metrics=settings.http is not None)
    _refuse(options, "the simulated engine takes none of vLLM's")
    return SimulatedEngine(
        Behaviour(
            settings.simulated_first_token,
            settings.simulated_per_token,
            settings.simulated_capacity,
            settings.simulated_failure_rate,
            settings.simulated_grammar,
        )
    )


def _refuse(options: Sequence[str], why: str) -> None:
    if options:
        name = options[0].partition("=")[0]
        raise click.UsageError(f"no such option: {name}{nearest(name, flags_of(Settings)) or f'; {why}'}")


def _lineup(models: Mapping[str, ModelSettings], memory: int | None = None, *, with_metrics: bool = False) -> Lineup:
    """The models of the file. What only some of them need is made with the first that does."""
    loop: RemoteLoop | None = None
    if any(place.backend is not None for one in models.values() for place in one.places):
        from inferbus_worker.engines.remote.loop import RemoteLoop  # noqa: PLC0415 - heavy, and not for every worker

        loop = RemoteLoop()
    lineup: dict[str, Model] = {}
    for name, one in models.items():
        model = lineup[name] = Model(name, one.fallback, name)
        kinds = Counter(_kind(place) for place in one.places)
        numbers: Counter[str] = Counter()
        for place in one.places:
            kind = _kind(place)
            numbers[kind] += 1
            label = f"{name}/{kind}" + (f"-{numbers[kind]}" if kinds[kind] > 1 else "")
            try:
                engine = _engine(name, label, place, loop, with_metrics=with_metrics)
            except SettingsError as error:
                raise ConflictError(str(error), f"models.{name}") from None
            slot = Slot(model, label, engine, place, concurrency=place.concurrency, host=_host(place))
            if place.backend is not None:
                slot.most = engine.capacity if slot.concurrency in {None, "auto"} else int(slot.concurrency)
            model.slots.append(slot)
    return Lineup(lineup, loop, *_managed(models, lineup, memory))


def _managed(
    models: Mapping[str, ModelSettings], lineup: Mapping[str, Model], memory: int | None
) -> tuple[dict[str, ManagedEngine], MemoryBudget | None]:
    """The engines whose servers the worker starts, by slot, and what says which of them may run."""
    if not any(place.is_managed for one in models.values() for place in one.places):
        return {}, None
    from inferbus_worker.engines.managed.engine import ManagedEngine  # noqa: PLC0415 - not for every worker
    from inferbus_worker.engines.managed.memory import MemoryBudget  # noqa: PLC0415
    from inferbus_worker.engines.managed.places import places_of  # noqa: PLC0415

    pairs = [
        pair for name, one in models.items() for pair in zip(lineup[name].slots, places_of(name, one), strict=True)
    ]
    engines = {slot.name: slot.engine for slot, _ in pairs if isinstance(slot.engine, ManagedEngine)}
    places = [replace(place, slot=slot.name) for slot, place in pairs if place is not None]
    return engines, MemoryBudget(memory, places)


def _kind(place: SlotSettings) -> str:
    return str(place.backend or place.engine)


def _host(place: SlotSettings) -> str:
    """Where a slot runs: slots of one host share what it has."""
    return (urlsplit(place.url).hostname or "") if place.url is not None else ""


def _engine(model: str, label: str, place: SlotSettings, loop: RemoteLoop | None, *, with_metrics: bool) -> Engine:
    if place.engine == "simulated":
        return SimulatedEngine(Behaviour(place.first_token, place.per_token, place.capacity, place.failure_rate), model)
    if place.engine == "vllm":
        from inferbus_worker.engines.vllm.engine import VllmEngine  # noqa: PLC0415 - a heavy import

        places = dict.fromkeys(place.options, f"models.{model}.options")
        return VllmEngine(place.path or "demo", arguments(place.options), places, with_metrics=with_metrics)
    from inferbus_worker.engines.remote.engine import RemoteEngine  # noqa: PLC0415
    from inferbus_worker.engines.remote.place import remote_place  # noqa: PLC0415

    assert loop is not None  # noqa: S101 - `_lineup` has made it
    if not place.is_managed:
        return RemoteEngine(remote_place(place, model=model, name=label), loop)
    from inferbus_worker.engines.managed.commands import as_asked  # noqa: PLC0415
    from inferbus_worker.engines.managed.engine import ManagedEngine  # noqa: PLC0415

    asked, remarks = as_asked(place, model), Once(logging.getLogger("inferbus.remote"))

    def at(url: str) -> Engine:
        return RemoteEngine(remote_place(asked, model=model, name=label, url=url), loop, remarks)

    return ManagedEngine(place, at, label, model=model)
