"""The entry point: collects the verbs, and turns every error into one sentence and an exit status."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import click

from inferbus_client.cli import streams
from inferbus_client.cli.terminal import in_words
from inferbus_client.cli.versions import installed
from inferbus_client.errors import InferbusError, SettingsError
from inferbus_client.exits import Exit, exit_of
from inferbus_client.settings.sources import nearest
from inferbus_client.shown import shown

#: Verbs that come with another distribution, and what to install for them.
_WORKERS_VERBS = frozenset({"serve", "demo", "estimate", "state"})
_WORKER = "in a checkout of Inferbus, scripts/setup installs it"
#: How much alike a slip and a verb are, from 0 to 1: verbs are short, and few.
_ALIKE: Final = 0.6

#: Verb to module; each module's command has the verb's name. Imported when used: `ask` should not wait for `stress`.
_OWN_VERBS = {
    "ask": "inferbus_client.cli.ask",
    "batch": "inferbus_client.cli.batch",
    "chat": "inferbus_client.cli.chat",
    "stress": "inferbus_client.cli.stress",
    "status": "inferbus_client.cli.status",
    "doctor": "inferbus_client.cli.doctor",
    "completion": "inferbus_client.cli.completion",
    "conformance": "inferbus_client.cli.conformance",
    "forget": "inferbus_client.cli.forget",
    "drain": "inferbus_client.cli.drain",
    "gateway": "inferbus_client.cli.gateway",
    "keys": "inferbus_client.cli.keys",
}


class _Verbs(click.Group):
    """Finds verbs lazily: our own by name, others through the entry-point group `inferbus.verbs`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted({*_OWN_VERBS, *_added_verbs()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in _OWN_VERBS:
            found = getattr(import_module(_OWN_VERBS[cmd_name]), cmd_name)
        elif cmd_name in (added := _added_verbs()):
            found = added[cmd_name].load()
        elif cmd_name in _WORKERS_VERBS:
            raise SettingsError(f"{cmd_name} comes with the worker: {_WORKER}")
        else:
            return None
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        said = args[0]
        meant = nearest(said, {*self.list_commands(ctx), *_WORKERS_VERBS}, alike=_ALIKE)
        if meant and not ctx.resilient_parsing and self.get_command(ctx, said) is None:
            ctx.fail(f"No such command {said!r}{meant}")
        return super().resolve_command(ctx, args)


def _added_verbs() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="inferbus.verbs")}


def _say_versions(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if wanted and not context.resilient_parsing:
        click.echo("\n".join(f"{name} {number}" for name, number in installed().items()))
        context.exit()


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_say_versions, help="Say what is installed."
)
def inferbus() -> None:
    """A language model on a message bus: serve one, and talk to it."""


def main() -> None:
    """Run the command line; never ends in a traceback for what a user can cause."""
    streams.prepare()
    sys.exit(_run())


def _run() -> int:
    try:
        status = inferbus.main(standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else Exit.OK
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (KeyboardInterrupt, click.Abort, RuntimeError) as error:
        if not _is_interrupt(error):
            raise
        return Exit.INTERRUPTED
    except click.ClickException as error:
        return _wrong_usage(error)
    except OSError as error:
        return _system_failed(error)
    except InferbusError as error:
        streams.complain(f"inferbus: {in_words(error)}")
        return exit_of(error)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or what became of it: in the middle of `threading`'s waits, a lock that nobody holds."""
    if error is None or isinstance(error, KeyboardInterrupt | click.Abort):
        return error is not None
    return _is_interrupt(error.__context__)


def _wrong_usage(error: click.ClickException) -> int:
    text = io.StringIO()
    error.show(text)
    try:
        click.echo(shown(text.getvalue()), nl=False, err=True)  # it may repeat the command line, or a file
    except OSError:
        streams.give_up(sys.stderr)
    return Exit.USAGE


def _system_failed(error: OSError) -> int:
    """The system said no to what we wrote or read. A reader who has gone (`| head`) needs no word of that."""
    what = error.filename or "cannot write the output"
    if not isinstance(error, BrokenPipeError):
        streams.complain(f"inferbus: {what}: {error.strerror or error}")
    streams.give_up(sys.stdout)
    return Exit.FAILED
