"""What `inferbus doctor` found, as one line in a pipe."""

from __future__ import annotations

import pytest

from inferbus_client.cli.doctor import _in_lines
from inferbus_client.contract.wire import FAILURES
from inferbus_client.fleet.checks import CheckResult


@pytest.mark.parametrize(
    "said", [*(kind.sentence for kind in FAILURES.values()), "the check itself failed: Bug: no..."]
)
def test_a_sentence_and_its_remedy_have_one_full_stop_between_them(said: str) -> None:
    line = _in_lines(CheckResult("answer", "failed", said, "The worker's log says why."))
    assert ".." not in line
    assert line.endswith(f"{said.rstrip('.')}. The worker's log says why.")


def test_a_sentence_without_a_remedy_is_as_it_was() -> None:
    assert _in_lines(CheckResult("answer", "ok", "It answers.")).endswith(" It answers.")
