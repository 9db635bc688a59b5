"""Flags made from a settings model, so that each setting is said once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import click
from click.shell_completion import CompletionItem
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from inferbus_client.settings import FileSettings

Command = TypeVar("Command", bound=Callable[..., Any])


_METAVARS: Final[dict[Any, str]] = {int: "N", float: "NUMBER", Path: "FILE"}


def settings_options(model: type[FileSettings], *, skip: Collection[str] = ()) -> Callable[[Command], Command]:
    """A decorator that gives a click command one option for every field of `model`.

    A field says its extra spellings with `json_schema_extra={"flags": ["-q"]}`. Values arrive as text (None: not
    given) and are parsed by the model alone. Secrets get no flag: a command line is for everybody to see.
    """

    def decorate(command: Command) -> Command:
        for name, field in reversed(model.model_fields.items()):
            if name not in skip and not _is_secret(field):
                command = _option(name, field)(command)
        return command

    return decorate


def given(model: type[FileSettings], values: dict[str, Any]) -> dict[str, Any]:
    """The values of a click command that belong to `model` and were given; what was not repeated counts as not."""
    return {name: value for name, value in values.items() if name in model.model_fields and value not in (None, ())}


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    flags = [*(str(flag) for flag in _listed(extra.get("flags"))), f"--{name.replace('_', '-')}", name]
    if _inner_type(field) is bool:
        flags = [flag if flag != f"--{name.replace('_', '-')}" else f"{flag}/--no-{flag[2:]}" for flag in flags]
        return click.option(*flags, default=None, help=_help(field))
    repeated = get_origin(_inner_type(field)) in {list, dict, tuple}
    return click.option(
        *flags,
        default=None,
        multiple=repeated,
        metavar=_metavar(field, extra),
        help=_help(field),
        shell_complete=_completer(field),
    )


def _completer(field: FieldInfo) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]] | None:
    """What a shell offers for the value: a field's choices, or files."""
    kind = _inner_type(field)
    if kind is Path:
        return lambda _context, _parameter, incomplete: [CompletionItem(incomplete, type="file")]
    if get_origin(kind) is not Literal:
        return None
    choices = [str(choice) for choice in get_args(kind)]
    return lambda _context, _parameter, begun: [CompletionItem(one) for one in choices if one.startswith(begun)]


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _metavar(field: FieldInfo, extra: dict[str, Any]) -> str:
    kind = _inner_type(field)
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    return str(extra.get("metavar", _METAVARS.get(kind, "VALUE")))


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    shown = extra.get("default", field.get_default(call_default_factory=True) if not field.is_required() else None)
    return f"{text} [default: {shown}]" if shown not in (None, [], {}, ()) else text


def _inner_type(field: FieldInfo) -> Any:
    """The field's type without `| None`."""
    kind = field.annotation
    if get_origin(kind) in {Union, UnionType}:
        inner = [arm for arm in get_args(kind) if arm is not type(None)]
        return inner[0] if len(inner) == 1 else str
    return kind


def _is_secret(field: FieldInfo) -> bool:
    return _inner_type(field) is SecretStr
