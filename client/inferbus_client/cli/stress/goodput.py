"""Goodput, as `vllm bench serve` counts it: answers per second that met every objective of their own."""

from __future__ import annotations

from dataclasses import dataclass, fields

from inferbus_client.cli.stress.ledger import Row
from inferbus_client.units import format_duration, parse_duration


@dataclass(frozen=True, slots=True)
class Goodput:
    """Objectives of a single request, in seconds; None where nothing is asked.

    Attributes:
        ttft: to the first token.
        tpot: for each output token after the first.
        e2el: to the whole answer.
    """

    ttft: float | None = None
    tpot: float | None = None
    e2el: float | None = None

    @property
    def asked(self) -> dict[str, float]:
        """The objectives that there are."""
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: limit for name, limit in found if limit is not None}

    def is_met_by(self, row: Row) -> bool:
        """Whether this request was answered in time. An answer of one token has no time per further token."""
        if row.total is None:
            return False
        measured = {"ttft": row.first_token, "tpot": row.per_token if row.tokens > 1 else 0.0, "e2el": row.total}
        return all((value := measured[name]) is not None and value <= limit for name, limit in self.asked.items())

    def __str__(self) -> str:
        return ", ".join(f"{name} {_spaced(limit)}" for name, limit in self.asked.items())


def parse_objective(text: str) -> tuple[str, float]:
    """`ttft:200`, `tpot:50ms` or `e2el:2s`; milliseconds where there is no unit, as in `vllm bench serve`.

    Raises:
        ValueError: it is none of them.
    """
    name, colon, limit = text.partition(":")
    if not colon or name not in {field.name for field in fields(Goodput)}:
        raise ValueError("must be ttft, tpot or e2el, a colon and a time, such as ttft:200ms")
    seconds = parse_duration(f"{limit}ms" if limit[-1:].isdecimal() else limit)
    if not isinstance(seconds, float):
        raise TypeError
    return name, seconds


def _spaced(seconds: float) -> str:
    text = format_duration(seconds)
    return text.replace("ms", " ms") if text.endswith("ms") else f"{text[:-1]} {text[-1]}"
