"""Runs fault trials by their numbers, and keeps the table of figures in docs/promises.md. Called by scripts/faults."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.machine import here
from support.trials import FIGURES_VARIABLE, SIZE_VARIABLE, SOAK_VARIABLE, TRIALS, Trial

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENT: Final = ROOT / "docs" / "promises.md"
BEGIN: Final = "<!-- figures: written by scripts/faults -->"
END: Final = "<!-- end of figures -->"
HEAD: Final = f"""\
# What we promise, and how each promise is tried

1. **Accounting.** Every accepted request gets exactly one terminal reply handed to the broker, by its deadline, while
   the process lives. A request that is not accepted gets exactly one refusal, where its reply topic is legal.
2. **Bounded memory.** What waits for the engine, what waits for the broker, sessions and their histories, remembered
   retries and rate limits: each has a bound, a setting for it, and its level in the stats.
3. **Isolation.** Nothing of one session reaches another. MQTT does not say who published: with the flat topics a
   session's id is a bearer secret; with the identity in the topic, and a broker that binds it to the login, the owner
   is (user, session).
4. **Drain.** SIGTERM ends the process within the drain timeout and two seconds, whatever the broker or the engine does.
   What is in flight finishes or ends with an error; nothing ends as a truncated success.
5. **QoS 0** is at most once: a crash loses the request, and the client times out. **QoS 1 with `--ack after-reply`** is
   at least once: a request stays with the broker until it has been answered, and a crash may answer one twice.
6. **Not promised**: exactly one generation per request; delivery past the broker's own limits; durability of a broker
   without persistence.

Each trial keeps a ledger: requests sent, accepted, with a terminal reply; lost (the broker took it, nobody answered),
duplicate (terminal replies after the first), repeated (those of them that say byte for byte the same, as a worker of a
group does where another was lost before it had heard that its reply had left), corrupt (another text than the right
one), leaked (a reply on another session's topic).

The short form of every trial runs with `scripts/test`; `scripts/faults --long` runs the long one.

{BEGIN}
{END}
"""


@dataclass(frozen=True)
class Result:
    """What came of one trial: whether its tests passed, and their figures."""

    trial: Trial
    passed: bool
    figures: tuple[str, ...]


def main() -> int:
    """Run what was asked for; the exit status says whether all of it held."""
    asked = arguments()
    chosen = [trial for trial in TRIALS if not asked.only or trial.number in asked.only]
    if asked.list:
        list_trials(chosen)
        return 0
    size = "long" if asked.long else "short"
    environment = {**os.environ, SIZE_VARIABLE: asked.size or size}
    if asked.minutes or asked.long:
        environment[SOAK_VARIABLE] = str(asked.minutes or 30)
    results = []
    for trial in chosen:
        results.append(run(trial, environment))
        write(results[-1:], asked.size or size)
    return 0 if all(result.passed for result in results) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the trials, and run nothing")
    parser.add_argument("--only", type=numbers, metavar="N,M", help="these trials alone")
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("--size", type=positive, metavar="N", help="so many repetitions instead of either form's")
    parser.add_argument("--minutes", type=float, help="how long the soak is to take (default with --long: 30)")
    return parser.parse_args()


def numbers(text: str) -> set[int]:
    """A list such as `9,12`.

    Raises:
        ValueError: one of them is no trial's number.
    """
    wanted = {int(part) for part in text.split(",")}
    if unknown := wanted - {trial.number for trial in TRIALS}:
        raise argparse.ArgumentTypeError(f"no such trial: {', '.join(map(str, sorted(unknown)))}")
    return wanted


def positive(text: str) -> str:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, 1 or more")
    return text


def list_trials(trials: Iterable[Trial]) -> None:
    for trial in trials:
        print(f"{trial.number:>3}  {trial.fault}\n     expected: {trial.expected}")
        for where in trial.where:
            print(f"     {where}")


def run(trial: Trial, environment: dict[str, str]) -> Result:
    """Run the trial's tests in a pytest of their own."""
    print(f"\n=== trial {trial.number}: {trial.fault} ===", flush=True)
    with tempfile.TemporaryDirectory(prefix="inferbus-faults-") as folder:
        figures = Path(folder) / "figures"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=0", *trial.where]
        status = subprocess.run(
            command, cwd=ROOT, env={**environment, FIGURES_VARIABLE: str(figures)}, check=False
        ).returncode
        lines = figures.read_text().splitlines() if figures.exists() else []
    said = [json.loads(line) for line in lines]
    return Result(trial, status == 0, tuple(each["figure"] for each in said if each["trial"] == trial.number))


def write(results: Sequence[Result], size: str) -> None:
    """Put the results into the document's table; rows of other trials stay as they are."""
    DOCUMENT.parent.mkdir(exist_ok=True)
    document = DOCUMENT.read_text() if DOCUMENT.exists() else HEAD
    before, _, rest = document.partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = old_rows(table) | {result.trial.number: row(result, size) for result in results}
    lines = [
        "| # | fault | expected | held | figures | form | when and where |",
        "|---|---|---|---|---|---|---|",
        *(rows[number] for number in sorted(rows)),
    ]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


def old_rows(table: str) -> dict[int, str]:
    found = {}
    for line in table.splitlines():
        number = line.strip("| ").partition(" ")[0]
        if line.startswith("|") and number.isdecimal():
            found[int(number)] = line
    return found


def row(result: Result, size: str) -> str:
    trial = result.trial
    held = "yes" if result.passed else "**no**"
    figures = "<br>".join(result.figures).replace("|", "/") or "its tests passed" * result.passed
    return f"| {trial.number} | {trial.fault} | {trial.expected} | {held} | {figures} | {size} | {when_and_where()} |"


def when_and_where() -> str:
    machine = here()
    versions = ", ".join(
        f"{name} {machine.versions[name]}" for name in ("python", "mosquitto") if name in machine.versions
    )
    return f"{datetime.now(UTC):%Y-%m-%d}, {machine.cpu}, {machine.cores} cores, {versions}"


if __name__ == "__main__":
    sys.exit(main())
