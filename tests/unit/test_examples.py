"""Every example says how it is tested, and stands in the README; the advice for devices knows every failure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from inferbus_client.contract.wire import FAILURES
from support.scripts import ROOT

EXAMPLES: Final = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())
TESTS: Final = ROOT / "tests/e2e/examples"
_LINK: Final = re.compile(r"\]\((?!https?:)(?P<path>[^)#]+)")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_says_how_it_is_tested_and_what_it_points_to_is_there(example: Path) -> None:
    page = (example / "README.md").read_text()
    assert "\nTested: " in page
    assert [link for link in _LINK.findall(page) if not (example / link).exists()] == []
    assert (TESTS / f"test_{example.name.replace('-', '_')}.py").exists()


def test_every_example_has_a_row_in_the_readme() -> None:
    rows = re.findall(r"^\| \[.+?\]\(examples/([\w-]+)\) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == [example.name for example in EXAMPLES]


def test_the_advice_for_devices_has_every_failure_and_says_whether_to_try_again() -> None:
    page = (ROOT / "docs/devices.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (yes|no) \|", page, re.MULTILINE))
    assert rows == {code: "yes" if kind.retryable else "no" for code, kind in FAILURES.items()}
