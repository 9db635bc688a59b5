"""`inferbus stress --find-concurrency`: closed loops of more and more at once, and the number that is worth it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from inferbus_client.cli.cells import folded
from inferbus_client.cli.stress.knee import Recommendation, Search
from inferbus_client.cli.stress.plan import Plan
from inferbus_client.cli.stress.report import format_rate, format_seconds, print_table
from inferbus_client.cli.stress.result import Result

#: Seconds of one step where nothing else is said, and the most that one with a number of messages may take.
_STEP: Final = 5.0
_LONGEST_STEP: Final = 60.0
#: Requests of one step, however fast they are answered.
_MOST_REQUESTS: Final = 20_000


def first_step(plan: Plan, *, has_messages: bool) -> Plan:
    """What the steps have in common.

    Each request stands for itself: then no step's prompts are longer than another's, no session's rate limit is in the
    way, and nothing stays behind in the worker.

    Args:
        plan: as the options say.
        has_messages: whether they say how many messages each client sends.
    """
    most = plan.messages if has_messages else None
    duration = plan.duration or (_LONGEST_STEP if has_messages else _STEP)
    return replace(plan, clients=1, duration=duration, most_messages=most, stateless=True)


def steps(search: Search, plan: Plan, results: Sequence[Result]) -> Iterator[Plan]:
    """The plans, each made when those before are in `results`."""
    while (clients := search.next(results)) is not None:
        share = max(_MOST_REQUESTS // clients, 1)
        most = share if plan.most_messages is None else min(plan.most_messages, share)
        # What is wrong with one request is wrong with all of them, and the first step finds it.
        yield replace(plan, clients=clients, most_messages=most, gives_up=not results)


def print_curve(console: Console, results: Sequence[Result], found: Recommendation) -> None:
    """All steps, a line each, and the number."""
    rows = [
        (
            str(result.plan.clients),
            format_rate(result.throughput),
            format_rate(result.token_throughput),
            format_seconds(result.total.p50),
            format_seconds(result.total.p95),
            format_seconds(result.first_token.p50),
            format_seconds(result.first_token.p95),
        )
        for result in results
    ]
    print_table(console, ("at once", "req/s", "tok/s", "p50", "p95", "first p50", "first p95"), rows)
    for remark in found.remarks:
        console.print(Text("\n".join(folded(remark, console.width))))
    if found.concurrency is None:
        console.print(Text(found.rule, style="bold"))
    else:
        number = f"Recommended concurrency: {found.concurrency}"
        shown = Text("\n".join(folded(f"{number}: {found.rule}", console.width)))
        shown.stylize("bold", 0, len(number))
        console.print(shown)


def as_json(found: Recommendation) -> Mapping[str, Any]:
    return {"concurrency": found.concurrency, "rule": found.rule, "remarks": list(found.remarks)}
