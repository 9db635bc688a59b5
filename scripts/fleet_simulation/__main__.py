"""The command: simulate one fleet and print its figures, or write the tables of docs/fleet.md."""

from __future__ import annotations

import argparse
import math

from inferbus_client.units import parse_duration

from . import page
from .plan import Plan
from .run import simulate


def _arguments() -> argparse.Namespace:
    default = Plan(1)
    parser = argparse.ArgumentParser(
        prog="scripts/simulate-fleet",
        description="Simulates workers of one group on one store: what so many of them and so many sessions need.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workers", type=_positive, default=100, help="workers of the group")
    add("--slots", type=_positive, default=default.slots, help="requests that each runs at once")
    add("--answer", type=_seconds, default="2s", help="how long an answer takes, on average")
    add("--steady", action="store_true", help="every answer takes just as long; else the times are exponential")
    add("--sessions", type=_positive, default=1_000_000, help="conversations that there are")
    add("--think", type=_seconds, default="30m", help="from an answer to the next question, on average; 0s: at once")
    add("--queue-size", type=_positive, default=10_000, help="requests that may wait")
    add("--trip", type=_seconds, default="200us", help="there and back between a worker and the store")
    measured = "microseconds of the store's processor for a request (default: as measured)"
    add("--redis-us", type=float, default=argparse.SUPPRESS, help=measured)
    add("--requests", type=_positive, default=50_000, help="how many are watched")
    add("--seed", type=int, default=default.seed, help="of what is left to chance")
    add("--write", action="store_true", help="write the tables of docs/fleet.md, and simulate nothing else")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("us")) / 1e6 if text.endswith("us") else parse_duration(text)
    except ValueError:
        seconds = None
    if not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 200us, 100ms, 2s, 30m")
    return seconds


def main() -> None:
    """Do what was asked for."""
    arguments = _arguments()
    if arguments.write:
        page.PAGE.write_text(page.written(page.PAGE.read_text()))
        return
    costs = page.costs_now()
    if "redis_us" in arguments:
        costs = costs.as_measured(arguments.redis_us / 1e6)
    plan = Plan(
        workers=arguments.workers,
        slots=arguments.slots,
        answer=arguments.answer,
        is_steady=arguments.steady,
        sessions=arguments.sessions,
        think=arguments.think,
        trip=arguments.trip,
        queue_size=arguments.queue_size,
        requests=arguments.requests,
        warm_up=arguments.requests // 10,
        costs=costs,
        seed=arguments.seed,
    )
    print(page.described(plan, simulate(plan)))


if __name__ == "__main__":
    main()
