"""The worker's verbs. They join `inferbus` through an entry-point group; the client knows nothing of them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from inferbus_client.cli.options import given, settings_options
from inferbus_client.errors import ConflictError, SettingsError
from inferbus_client.exits import Exit
from inferbus_client.settings.file import SettingsFile
from inferbus_client.settings.flags import flags_of
from inferbus_client.settings.sources import nearest
from inferbus_client.shown import shown_in_line
from inferbus_worker.settings.vllm_options import arguments
from inferbus_worker.settings.worker import Settings

if TYPE_CHECKING:
    from inferbus_worker.engines.factory import Lineup

log = logging.getLogger("inferbus.serve")


@click.command(
    short_help="Serve a model to the bus.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]},
    epilog="Options that are not listed here go to vLLM unchanged, under vLLM's own names "
    "(--max-model-len, --gpu-memory-utilization, --tensor-parallel-size, --quantization …).",
)
@click.argument("model", required=False)
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file with these settings.")
@click.option("--check-config", is_flag=True, help="Start nothing: print the settings in force and where each stands.")
@settings_options(Settings)
@click.pass_context
def serve(
    context: click.Context, /, model: str | None, config: Path | None, *, check_config: bool, **flags: Any
) -> int:
    """Serve MODEL to the bus: a folder, a model's name on the hub, or `demo` for the one that is built in.

    With --backend it is what that server calls its model. Where the file names several (models:), leave it out.
    """
    # Imported here: the verbs of the client should not wait for the daemon's parts.
    from inferbus_worker import logs  # noqa: PLC0415
    from inferbus_worker.config_check import remarks  # noqa: PLC0415
    from inferbus_worker.daemon import Daemon  # noqa: PLC0415

    if model is not None and model.startswith("-"):
        # click takes the first word that it does not know for MODEL, also an option of the engine's.
        context.args.insert(0, model)
        model = None
    settings = Settings.load(given(Settings, flags), config)
    if check_config:
        places = Settings.places(given(Settings, flags), config)
        return _check(settings, places, model, context.args, config)
    _check_model(settings, model, context.args)
    logs.configure(settings.log_format, settings.log_level)
    for remark in remarks(settings):
        log.warning("%s", remark)
    lineup = _lineup(settings, model, context.args, config)
    return _leave(Daemon(settings, lineup).run())


def _check_model(settings: Settings, model: str | None, options: Sequence[str]) -> None:
    """MODEL is named where it has to be, and nowhere else. An option that we do not know takes in one behind it."""
    if settings.models:
        if model is not None:
            raise click.UsageError(f"{model}: models: in the file names what is served; leave MODEL out.")
    elif model is None and settings.backend is not None:
        if not options:  # else it is these that are wrong, and are named with what is meant
            raise click.UsageError(f"which model? Say what {settings.backend} calls it.")
    elif model is None and settings.engine == "vllm":
        before = "any option of vLLM."
        if options:
            name = options[0].partition("=")[0]
            before = f"{name}, which is taken for vLLM's{nearest(name, flags_of(Settings)) or '.'}"
        raise click.UsageError(f"which model? Give a folder, a hub name, or demo, before {before}")


def _lineup(settings: Settings, model: str | None, options: Sequence[str], config: Path | None) -> Lineup:
    """What serves; whatever is wrong with a slot is said with the place of its model in the file."""
    from inferbus_worker.engines.factory import make_lineup  # noqa: PLC0415

    try:
        return make_lineup(settings, model, options, _vllm_places(settings, config))
    except SettingsError as error:
        if config is None:
            raise
        keys = tuple(error.names[0].split(".", 1)) if isinstance(error, ConflictError) else ("models",)
        raise SettingsError(f"{SettingsFile.read(config).place(keys)}: {error}") from None


def _vllm_places(settings: Settings, config: Path | None) -> dict[str, str]:
    """Where in the file each of vLLM's options stands."""
    file = SettingsFile() if config is None else SettingsFile.read(config)
    return {name: file.place(("vllm", name)) for name in settings.vllm}


def _check(
    settings: Settings,
    places: Mapping[str, str],
    model: str | None,
    options: Sequence[str],
    config: Path | None,
) -> int:
    from inferbus_worker.config_check import describe, remarks  # noqa: PLC0415

    settings.link_options("check")  # reads the password file
    _check_model(settings, model or ("demo" if settings.backend is None and not settings.models else None), options)
    if settings.models or settings.backend is not None or settings.engine == "simulated":
        _lineup(settings, model, options, config)  # reads the keys, and refuses options that nobody takes
    elif (settings.vllm or options) and find_spec("vllm") is not None:
        from inferbus_worker.engines.vllm.arguments import parse_options  # noqa: PLC0415

        parse_options(model or "demo", [*arguments(settings.vllm), *options], _vllm_places(settings, config))
    click.echo(describe(settings, places, options, model))
    for remark in remarks(settings):
        click.echo(f"inferbus: {shown_in_line(remark)}", err=True)
    return Exit.OK


@click.command(short_help="Try it: a broker, a worker and a chat in one.")
@click.option(
    "--once", multiple=True, metavar="TEXT", help="Send this, print the reply, and stop. Repeatable: one session."
)
@click.option("--broker", metavar="URL", help="Use a running broker instead of starting one.")
@click.option("--engine", type=click.Choice(["vllm", "simulated"]), default="vllm", show_default=True)
@click.option("--model", default="demo", show_default=True, help="What to serve.")
@click.option(
    "--backend",
    type=click.Choice(["mlx"]),
    help="Serve it a second time, as demo-mlx, on a server of this kind that the worker starts. --once asks both.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 8),
    default=1,
    show_default=True,
    help="Several are one group: any of them goes on with the chat. Needs redis-server, and Mosquitto or --broker.",
)
def demo(
    once: tuple[str, ...], broker: str | None, engine: str, model: str, backend: Literal["mlx"] | None, workers: int
) -> int:
    """Try it: a broker, a worker and a chat, started together and stopped together."""
    from inferbus_worker.demo.verb import run  # noqa: PLC0415

    return run(once=once, broker=broker, engine=engine, model=model, backend=backend, workers=workers)


def _leave(status: int) -> NoReturn:
    """End the process now.

    Everything has been stopped in order; the interpreter's own teardown of torch and vLLM takes seconds, in which
    nothing is left to do, while a supervisor waits for us.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
