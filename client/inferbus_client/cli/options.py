"""Flags made from a settings model, so that each setting is said once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import click
from click.shell_completion import CompletionItem
from pydantic.fields import FieldInfo

from inferbus_client.settings.connection import FileSettings
from inferbus_client.settings.flags import has_flag
from inferbus_client.units import bare_type

Command = TypeVar("Command", bound=Callable[..., Any])


_METAVARS: Final[dict[Any, str]] = {int: "N", float: "NUMBER", Path: "FILE"}


def settings_options(
    model: type[FileSettings],
    *,
    skip: Collection[str] = (),
    hidden: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
) -> Callable[[Command], Command]:
    """A decorator that gives a click command one option for every field of `model`.

    A field says its extra spellings with `json_schema_extra={"flags": ["-q"]}`. Values arrive as text (None: not
    given) and are parsed by the model alone. Secrets get no flag: a command line is for everybody to see. What the
    help shows as default, `defaults` can say for this command; what is `hidden` it does not show at all.
    """

    def decorate(command: Command) -> Command:
        for name, field in reversed(model.model_fields.items()):
            if name not in skip and has_flag(field):
                command = _option(name, field, (defaults or {}).get(name), hidden=name in hidden)(command)
        return command

    return decorate


def given(model: type[FileSettings], values: dict[str, Any]) -> dict[str, Any]:
    """The values of a click command that belong to `model` and were given; what was not repeated counts as not."""
    return {name: value for name, value in values.items() if name in model.model_fields and value not in (None, ())}


def _option(name: str, field: FieldInfo, default: str | None, *, hidden: bool) -> Callable[[Command], Command]:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    more = extra.get("flags")
    flags = [*(map(str, more) if isinstance(more, list) else ()), f"--{name.replace('_', '-')}", name]
    text = _help(field, default)
    if bare_type(field.annotation) is bool:
        flags = [flag if flag != f"--{name.replace('_', '-')}" else f"{flag}/--no-{flag[2:]}" for flag in flags]
        return click.option(*flags, default=None, help=text, hidden=hidden)
    repeated = get_origin(bare_type(field.annotation)) in {list, dict, tuple} or "repeated" in extra
    return click.option(
        *flags,
        default=None,
        multiple=repeated,
        metavar=_metavar(field, extra),
        help=text,
        hidden=hidden,
        shell_complete=_completer(field),
    )


def _completer(field: FieldInfo) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]] | None:
    """What a shell offers for the value: a field's choices, or files."""
    kind = bare_type(field.annotation)
    if kind is Path:
        return lambda _context, _parameter, incomplete: [CompletionItem(incomplete, type="file")]
    if get_origin(kind) is not Literal:
        return None
    choices = [str(choice) for choice in get_args(kind)]
    return lambda _context, _parameter, begun: [CompletionItem(one) for one in choices if one.startswith(begun)]


def _metavar(field: FieldInfo, extra: dict[str, Any]) -> str:
    kind = bare_type(field.annotation)
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    return str(extra.get("metavar", _METAVARS.get(kind, "VALUE")))


def _help(field: FieldInfo, default: str | None) -> str:
    text = field.description or ""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    own = field.get_default(call_default_factory=True) if not field.is_required() else None
    shown = default or extra.get("default", own)
    return f"{text} [default: {shown}]" if shown not in (None, [], {}, ()) else text
