"""A plugin of pytest: the figures of the fault trials stand at the end of its output, whichever process found them."""

from __future__ import annotations

from typing import Final

import pytest

#: So begins the name of the user property under which a test's report carries a figure; the trial's number follows.
TRIAL: Final = "trial "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for each in terminalreporter.stats.values() for report in each]
    figures = [
        (int(name.removeprefix(TRIAL)), figure)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, figure in report.user_properties
        if name.startswith(TRIAL)
    ]
    if figures:
        terminalreporter.section("figures of the fault trials")
    for number, figure in sorted(figures, key=lambda pair: pair[0]):
        terminalreporter.line(f"trial {number}: {figure}")
