"""How a trial reports its figure: at the end of pytest's output, and in a file for `scripts/faults`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from support.ledger import Ledger, in_words
from support.trials import FIGURES_VARIABLE

Report = Callable[..., None]

_FIGURES: Final = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[_FIGURES]:
        terminalreporter.section("figures of the fault trials")
        for line in config.stash[_FIGURES]:
            terminalreporter.line(line)


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Report:
    """`report(12, "200 points", ledger)`: the figure of a trial, and its ledger where it has one."""

    def report(number: int, figure: str, ledger: Ledger | None = None) -> None:
        tally = {} if ledger is None else ledger.tally()
        whole = figure if ledger is None else f"{figure}; {in_words(tally)}"
        pytestconfig.stash[_FIGURES].append(f"trial {number}: {whole}")
        if file := os.environ.get(FIGURES_VARIABLE):
            with Path(file).open("a") as figures:
                figures.write(json.dumps({"trial": number, "figure": whole}) + "\n")

    return report
