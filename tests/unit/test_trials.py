"""The list of trials: each has a number of its own, and tests that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.trials import TRIALS, Trial

ROOT = Path(__file__).parents[2]


def test_each_has_a_number_of_its_own_in_order() -> None:
    numbers = [trial.number for trial in TRIALS]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: str(trial.number))
def test_its_tests_are_there(trial: Trial) -> None:
    for where in trial.where:
        file, _, name = where.partition("::")
        text = (ROOT / file).read_text()
        assert all(f"def {part}" in text or f"class {part}" in text for part in name.split("::") if part)
