"""Which settings are in force, and where each was said."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from inferbus_client.settings.connection import FileSettings

_MOSQUITTO: Final = {"broker": "MQTT_HOST", "username": "MQTT_USERNAME", "password": "MQTT_PASSWORD"}


def in_force(settings: FileSettings, flags: Collection[str] = (), file: Path | None = None) -> str:
    """The settings that somebody has said, each with where; a secret is stars.

    Args:
        settings: as they were loaded.
        flags: the names of those that the command line gave.
        file: the YAML file that was read, if one was.
    """
    said = [name for name in type(settings).model_fields if name in settings.model_fields_set]
    words = [f"{name} {_value(settings, name)} ({_origin(name, flags, file)})" for name in said]
    return f"{', '.join(words)}; the others are defaults" if words else "all are defaults"


def _value(settings: FileSettings, name: str) -> object:
    value = getattr(settings, name)
    return "***" if isinstance(value, SecretStr) else settings.model_dump(mode="json", include={name})[name]


def _origin(name: str, flags: Collection[str], file: Path | None) -> str:
    if name in flags:
        return f"--{name.replace('_', '-')}"
    variables = {variable.upper() for variable in os.environ}
    if (ours := f"INFERBUS_{name.upper()}") in variables:
        return ours
    if (theirs := _MOSQUITTO.get(name, "")) in variables:
        return theirs
    return str(file or "environment")
