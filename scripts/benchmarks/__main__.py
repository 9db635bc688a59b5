"""The command: measure, print, write."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from inferbus_client.units import counted

from . import bus, command_line, curves, document, engine, fleet, gateway, memory, overload, plot, startup, streams
from .commits import NoSuchCommitError
from .compare import HEADER, compare
from .figures import Section
from .machine import call_ns, here
from .plan import Plan
from .processes import ProcessFailedError

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
#: Open files, for a thousand connections with room to spare; the soft limit is often 1,024.
_FILES: Final = 16_384
_WRITTEN: Final = "Nothing was written but what a line `Written:` names above."


def _measured(plan: Plan, suites: Collection[str]) -> Iterator[list[Section]]:
    """Each suite's sections as soon as it is through; what is said of the engine's suites is for them alone."""
    alone = replace(plan, levels=command_line.LEVELS, shape=None, engine_options=())
    for suite in suites:
        if suite in _ALONE:
            yield _taken(alone, partial(_ALONE[suite], alone), suite)
    on_engine = [suite for suite in suites if suite in engine.WAYS]
    if on_engine:
        yield _taken(plan, lambda: engine.measure(plan, on_engine), *on_engine)


def _taken(plan: Plan, measure: Callable[[], list[Section]], *suites: str) -> list[Section]:
    """The sections, with when and where they were measured."""
    facts = {
        "rounds": plan.rounds,
        "short": plan.quick,
        "taken": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": plan.command(*suites),
        "load": os.getloadavg()[0],
        "call_ns": call_ns(),
        "machine": here(),
    }
    return [section.model_copy(update=facts) for section in measure()]


def _print(section: Section) -> None:
    print(f"\n{section.title}")
    for row in [section.header, *section.rows]:
        print("  " + " | ".join(row))
    if section.short:
        print(f"  {document.SHORT}")
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
    machine = here()
    rounds = counted(plan.rounds, "round")
    said = [f"{commit} and {machine.commit}, {rounds} in turns, on {machine.cores} cores ({machine.cpu})"]
    if plan.quick:
        said.append(document.SHORT)
    said.append(" | ".join(HEADER))
    try:
        for row in compare(plan, commit):
            print(*said, " | ".join(row), sep="\n", flush=True)
            said = []
    except (NoSuchCommitError, ProcessFailedError, TimeoutError, ValueError) as error:
        sys.exit(f"scripts/bench --compare: {error}")
    print("CPU time of the worker per request, median (lowest to highest); below 1 it is cheaper now.")
    if plan.rounds < command_line.ROUNDS:
        print(command_line.CHANCE)


def main() -> None:
    """Measure what was asked for. The status is 0 whether goals are met or not; the document says which are."""
    wishes = command_line.read(sys.argv[1:])
    # A `with` ends what it has started when an exception comes by; a signal alone would not raise one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _allow_many_connections()
    if wishes.compare is not None:
        _compare(wishes.plan, wishes.compare)
        return
    if wishes.out is not None:
        try:
            document.check(wishes.out)
        except document.DocumentError as error:
            sys.exit(f"scripts/bench: {error}")
    try:
        for new in _measured(wishes.plan, wishes.suites):
            for section in new:
                _print(section)
            if wishes.out is not None:
                sections = document.merge(wishes.out, new)
                document.write(wishes.out, sections, plot.draw(wishes.out, sections))
                print(f"\nWritten: {wishes.out}", flush=True)
    except (ProcessFailedError, TimeoutError, ValueError) as error:
        sys.exit(f"\nscripts/bench: {error}. {_WRITTEN}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(f"\nscripts/bench: interrupted. {_WRITTEN}")
