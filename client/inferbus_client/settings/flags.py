"""Which settings have a flag, and what it is called; the flags themselves click makes, in `cli.options`."""

from __future__ import annotations

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from inferbus_client.settings.sources import is_file_only
from inferbus_client.units import bare_type


def flags_of(model: type[BaseModel]) -> list[str]:
    """The flag of each field that has one."""
    return [f"--{name.replace('_', '-')}" for name, field in model.model_fields.items() if has_flag(field)]


def has_flag(field: FieldInfo) -> bool:
    """A secret has none: a command line is for everybody to see."""
    return bare_type(field.annotation) is not SecretStr and not is_file_only(field)
