"""Which engine the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from inferbus_client.settings.flags import flags_of
from inferbus_client.settings.sources import nearest
from inferbus_worker.engines.base import Engine
from inferbus_worker.settings.vllm_options import arguments
from inferbus_worker.settings.worker import Settings


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

        return VllmEngine(model or "demo", [*arguments(settings.vllm), *options], places)
    from inferbus_worker.engines.simulated import Behaviour, SimulatedEngine  # noqa: PLC0415

    if options:
        name = options[0].partition("=")[0]
        meant = nearest(name, flags_of(Settings)) or "; the simulated engine takes none of vLLM's"
        raise click.UsageError(f"no such option: {name}{meant}")
    return SimulatedEngine(
        Behaviour(
            settings.simulated_first_token,
            settings.simulated_per_token,
            settings.simulated_capacity,
            settings.simulated_failure_rate,
            settings.simulated_grammar,
        )
    )
