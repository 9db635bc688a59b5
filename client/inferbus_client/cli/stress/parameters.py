"""Values on the command line of `inferbus stress`; click callbacks."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from inferbus_client.cli.stress.goodput import Goodput, parse_objective
from inferbus_client.cli.stress.objectives import parse_share
from inferbus_client.units import parse_duration


def seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> object:
    """`500ms`, `30s`, `5m` as seconds."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


def some_seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> object:
    """The same, and more than none."""
    if (found := seconds(context, parameter, value)) == 0:
        raise click.BadParameter("must be longer than nothing.")
    return found


def share(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """`1%` or `0.01`."""
    try:
        return None if value is None else parse_share(value)
    except ValueError:
        raise click.BadParameter("must lie between 0% and 100%.") from None


def counts(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """`1,5,10,50`."""
    if value is None:
        return None
    try:
        numbers = tuple(int(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise click.BadParameter("must be numbers from 1, separated by commas.")
    return numbers


def objectives(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Goodput:
    """`ttft:200`, `tpot:50ms`, `e2el:2s`."""
    try:
        return Goodput(**dict(map(parse_objective, values)))
    except ValueError:
        raise click.BadParameter("must be ttft, tpot or e2el, a colon and a time, such as ttft:200ms.") from None


class Number(click.FloatRange):
    """A range of numbers, to which nan does not belong."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


def new_file(*endings: str) -> Callable[[click.Context, click.Parameter, str | None], Path | None]:
    """A callback for a file that can be written: found out before the run rather than after it."""

    def check(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Path | None:
        if value is None:
            return None
        path = Path(value)
        if endings and path.suffix.lower() not in endings:
            raise click.BadParameter(f"{path} must end in {', '.join(endings[:-1])} or {endings[-1]}.")
        if not path.parent.is_dir():
            raise click.BadParameter(f"there is no folder {path.parent}.")
        if path.is_dir():
            raise click.BadParameter(f"{path} is a folder.")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise click.BadParameter(f"{path} cannot be written.")
        return path

    return check
