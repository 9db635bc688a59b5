"""The options that every verb of the client shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from inferbus_client.cli.options import given, settings_options
from inferbus_client.settings.client import ClientSettings
from inferbus_client.settings.connection import ConnectionSettings

Command = TypeVar("Command", bound=Callable[..., Any])

#: What says something of a request alone, and nothing to a verb that sends none.
OF_A_REQUEST: Final = frozenset(ClientSettings.model_fields) - {
    *ConnectionSettings.model_fields,
    *("client_id", "connect_timeout"),
}


def client_options(
    *,
    skip: Collection[str] = (),
    hidden: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
    model: type[ClientSettings] = ClientSettings,
) -> Callable[[Command], Command]:
    """A decorator that adds one option per client setting, `--config` and `-P`; `defaults` are the verb's own.

    Those that do nothing for a verb can be `hidden`: what leads to a project may stand behind every verb.
    """

    def decorate(command: Command) -> Command:
        command = settings_options(model, skip=skip, hidden=hidden, defaults=defaults)(command)
        command = click.option(
            "-P",
            "password",
            metavar="PASSWORD",
            help="The password at the broker. Every user of this machine can see it here; better set "
            "INFERBUS_PASSWORD or --password-file.",
        )(command)
        return click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE", help="A YAML file with these settings."
        )(command)

    return decorate


def load_settings(flags: dict[str, Any], config: Path | None, **defaults: Any) -> ClientSettings:
    """The settings in force; `defaults` are a verb's own, where neither flag, environment nor file says otherwise.

    Raises:
        SettingsError: a setting is not usable.
    """
    said = given(ClientSettings, flags)
    settings = ClientSettings.load(said, config)
    unsaid = {name: value for name, value in defaults.items() if name not in settings.model_fields_set}
    return ClientSettings.load({**unsaid, **said}, config) if unsaid else settings
