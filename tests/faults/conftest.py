"""How a trial reports its figure: at the end of pytest's output, and in a file for `scripts/faults`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.figures import TRIAL
from support.ledger import Ledger, in_words
from support.trials import FIGURES_VARIABLE

Report = Callable[..., None]


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """`report(12, "200 points", ledger)`: the figure of a trial, and its ledger where it has one."""

    def report(number: int, figure: str, ledger: Ledger | None = None) -> None:
        tally = {} if ledger is None else ledger.tally()
        whole = figure if ledger is None else f"{figure}; {in_words(tally)}"
        record_property(f"{TRIAL}{number}", whole)
        if file := os.environ.get(FIGURES_VARIABLE):
            with Path(file).open("a") as figures:
                figures.write(json.dumps({"trial": number, "figure": whole}) + "\n")

    return report
