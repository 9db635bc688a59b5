"""Which settings are in force, and where each was said."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import SecretStr

from inferbus_client.settings.connection import FileSettings


def in_force(settings: FileSettings, flags: Collection[str] = (), file: Path | None = None) -> str:
    """The settings that somebody has said, each with where; a secret is stars.

    Args:
        settings: as they were loaded.
        flags: the names of those that the command line gave.
        file: the YAML file that was read, if one was.
    """
    said = [name for name in type(settings).model_fields if name in settings.model_fields_set]
    places = type(settings).places({}, file)
    words = [f"{name} {_value(settings, name)} ({_flag(name) if name in flags else places[name]})" for name in said]
    return f"{', '.join(words)}; the others are defaults" if words else "all are defaults"


def _value(settings: FileSettings, name: str) -> object:
    value = getattr(settings, name)
    return "***" if isinstance(value, SecretStr) else settings.model_dump(mode="json", include={name})[name]


def _flag(name: str) -> str:
    # `--password` there is none: what is written out is for files and variables.
    return "-P" if name == "password" else f"--{name.replace('_', '-')}"
