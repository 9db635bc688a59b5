"""The command: measure, print, write."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import bus, curves, document, engine, fleet, gateway, memory, overload, plot, startup, streams
from .commits import NoSuchCommitError
from .compare import HEADER, compare
from .figures import Section
from .machine import here
from .model import SHAPES
from .plan import Plan
from .processes import ProcessFailedError

_ROOT: Final = Path(__file__).resolve().parents[2]
_ROUNDS: Final = 5
_QUICK_ROUNDS: Final = 2
_ALONE: Final[dict[str, Callable[[Plan], list[Section]]]] = {
    "bus": bus.measure,
    "curves": curves.measure,
    "overload": overload.measure,
    "memory": memory.measure,
    "startup": startup.measure,
    "streams": streams.measure,
    "gateway": gateway.measure,
    "fleet": fleet.measure,
}
_ON_ENGINE: Final = tuple(engine.WAYS)
_LEVELS: Final = (1, 8, 64)
_GPU_SHAPE: Final = "1b"
_GPU_LEVELS: Final = (64, 256, 512, 1_000)
#: Open files, for a thousand connections with room to spare; the soft limit is often 1,024.
_FILES: Final = 16_384


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the worker beside its yardsticks, and writes docs/benchmarks.md with plots. "
        "On a machine that does nothing else, all of it takes well over an hour.",
        epilog="Options after -- go to vLLM, on every side alike: scripts/bench --gpu -- --gpu-memory-utilization 0.5",
    )
    add = parser.add_argument
    add("--only", action="append", choices=[*_ALONE, *_ON_ENGINE], help="measure this suite; repeatable")
    add("--quick", action="store_true", help="a tenth of the requests, to see that it works")
    add("--rounds", type=_positive, help=f"repeat everything so often (default {_ROUNDS}, quick {_QUICK_ROUNDS})")
    add("--out", type=Path, default=_ROOT / "docs" / "benchmarks.md", help="the document to write")
    add("--sessions", type=_levels, help="concurrent sessions of the engine's suites (default 1,8,64)")
    add("--shape", choices=SHAPES, help="random weights in this shape instead of the demo model")
    at = ", ".join(f"{level:,}" for level in _GPU_LEVELS)
    add("--gpu", action="store_true", help=f"the engine's suites alone: --shape {_GPU_SHAPE}, at {at} sessions")
    add("--compare", metavar="COMMIT", help="only print the worker's CPU time per request beside that of a commit")
    add("engine_options", nargs="*", metavar="-- OPTION", help="vLLM's own options")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _levels(text: str) -> tuple[int, ...]:
    return tuple(_positive(level) for level in text.split(","))


def _plan(arguments: argparse.Namespace) -> Plan:
    return Plan(
        rounds=arguments.rounds or (_QUICK_ROUNDS if arguments.quick else _ROUNDS),
        quick=arguments.quick,
        levels=arguments.sessions or (_GPU_LEVELS if arguments.gpu else _LEVELS),
        shape=arguments.shape or (_GPU_SHAPE if arguments.gpu else None),
        engine_options=tuple(arguments.engine_options),
    )


def _measure(plan: Plan, suites: list[str]) -> list[Section]:
    sections = []
    for suite in suites:
        if suite in _ALONE:
            sections += _taken(plan, lambda suite=suite: _ALONE[suite](plan))  # type: ignore[misc]
    on_engine = [suite for suite in suites if suite in _ON_ENGINE]
    if on_engine:
        sections += _taken(plan, lambda: engine.measure(plan, on_engine))
    return sections


def _taken(plan: Plan, measure: Callable[[], list[Section]]) -> list[Section]:
    """The sections, with when and where they were measured."""
    facts = {
        "rounds": plan.rounds,
        "short": plan.quick,
        "taken": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load": os.getloadavg()[0],
        "machine": here(),
    }
    return [section.model_copy(update=facts) for section in measure()]


def _print(section: Section) -> None:
    print(f"\n{section.title}")
    for row in [section.header, *section.rows]:
        print("  " + " | ".join(row))
    for verdict in section.verdicts:
        print(f"  {'met   ' if verdict.met else 'MISSED'}  {verdict.goal}: {verdict.figure}")


def _allow_many_connections() -> None:
    """For us and for all that we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _compare(plan: Plan, commit: str) -> None:
    """Print, and write nothing. Where that commit does not run here, the status is 1, after a sentence."""
    try:
        print(" | ".join(HEADER))
        for row in compare(plan, commit):
            print(" | ".join(row), flush=True)
    except (NoSuchCommitError, ProcessFailedError, TimeoutError, ValueError) as error:
        sys.exit(f"scripts/bench --compare: {error}")


def main() -> None:
    """Measure what was asked for. The status is 0 whether goals are met or not; the document says which are."""
    arguments = _arguments()
    # A `with` ends what it has started when an exception comes by; a signal alone would not raise one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _allow_many_connections()
    if arguments.compare:
        _compare(_plan(arguments), arguments.compare)
        return
    default = list(_ON_ENGINE) if arguments.gpu else [*_ALONE, *_ON_ENGINE]
    new = _measure(_plan(arguments), arguments.only or default)
    for section in new:
        _print(section)
    out = arguments.out.resolve()
    sections = document.merge(out, new)
    document.write(out, sections, plot.draw(out, sections))
    print(f"\nWritten: {out}")


if __name__ == "__main__":
    main()
