"""What cannot be meant by the options of `inferbus stress`, said before the run."""

from __future__ import annotations

import math
from typing import Any, Final

import click
from click.core import ParameterSource

from inferbus_client.cli.stress.plan import OPEN_LOOP_DURATION

#: The first says nothing, or something else, where the second is given.
_APART: Final = (
    ("messages", "duration"),
    ("messages", "request_rate"),
    ("clients", "request_rate"),
    ("clients", "sweep"),
    ("sweep", "request_rate"),
    *((name, "find_concurrency") for name in ("clients", "sweep", "request_rate", "ramp_up", "goodput")),
    *((name, "find_concurrency") for name in ("max_p95", "max_p99", "max_first_token")),
    *((name, "find_concurrency") for name in ("max_failed", "min_throughput")),
)
#: Of an open loop alone.
_OPEN: Final = ("burstiness", "max_concurrency", "seed")
#: About the times at which requests are due, of which there are none as fast as they go.
_SCHEDULE: Final = ("burstiness", "seed", "ramp_up")
#: Measured in a stream alone.
_STREAMED: Final = ("ttft", "tpot")


def refuse(context: click.Context, flags: dict[str, Any]) -> None:
    """Look at the options together.

    Raises:
        click.UsageError: with the two that cannot be meant beside each other.
    """
    given = {name for name in flags if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    for name, other in _APART:
        if {name, other} <= given:
            raise click.UsageError(f"{_flag(name)} does not go with {_flag(other)}.")
    rate = flags["request_rate"]
    for name in _OPEN:
        if name in given and rate is None and not (name == "max_concurrency" and flags["find_concurrency"]):
            raise click.UsageError(f"{_flag(name)} needs --request-rate.")
    for name in _SCHEDULE:
        if name in given and rate is not None and math.isinf(rate):
            raise click.UsageError(f"{_flag(name)} does not go with --request-rate inf.")
    lasts = flags["duration"] or (OPEN_LOOP_DURATION if rate is not None else math.inf)
    if flags["ramp_up"] > lasts:
        raise click.UsageError(f"--ramp-up is longer than --duration, which is {lasts:g} s.")
    _refuse_unmeasured(flags)


def _refuse_unmeasured(flags: dict[str, Any]) -> None:
    if flags["stream"]:
        return
    if flags["max_first_token"] is not None:
        raise click.UsageError("--max-first-token needs --stream.")
    for name in _STREAMED:
        if name in flags["goodput"].asked:
            raise click.UsageError(f"--goodput {name} needs --stream.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
