"""A plugin of pytest: a run that leaves a process behind has failed, whatever its tests said.

Each process that runs tests looks after what it started itself; where there are several, they tell the first.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from support.processes import adopt_orphans, assert_gone, descendants

#: Seconds in which what is still running may end: no more than a test may leave something behind for.
_PATIENCE: Final = 10.0
_KEY: Final = "left_behind"
_TOLD: Final = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TOLD] = []


def pytest_sessionstart() -> None:
    adopt_orphans()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Another process that ran tests has ended, and may have said what it left behind."""
    output = getattr(node, "workeroutput", {})  # none where it crashed
    if _KEY in output:
        node.config.stash[_TOLD].append(output[_KEY])


@pytest.hookimpl(trylast=True)  # when the processes that ran tests have ended too
def pytest_sessionfinish(session: pytest.Session) -> None:
    told = session.config.stash[_TOLD]
    try:
        assert_gone(descendants(), _PATIENCE)
    except AssertionError as error:
        told.append(str(error))
    if not told:
        return
    session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_KEY] = "\n".join(told)
        return
    for left in told:
        session.config.get_terminal_writer().line(f"\nThe tests left processes behind; {left}", red=True)
