"""Values on the command line of `inferbus stress`; click callbacks."""

from __future__ import annotations

import click

from inferbus_client.cli.stress.objectives import parse_share
from inferbus_client.units import parse_duration


def seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> object:
    """`500ms`, `30s`, `5m` as seconds."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


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
