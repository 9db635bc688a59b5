"""A plugin of pytest: which tests stay together where several processes share them (`-n 4 --dist loadgroup`).

Most tests wait more than they compute, so four processes are no crowd on two cores. Three kinds are apart:

- `vllm`: starts a real vLLM. One process has them all, so that no more of them run at once than in a serial run.
- `alone`: holds somebody to a bound in time that other tests would take from it. `scripts/test` runs these when
  all else is done.
- Tests with a fixture of their module or class: they share it, so one process has the module.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

#: Fixtures that start a vLLM, or import it, which takes a process half a minute and a gigabyte.
_OF_VLLM: Final = {"vllm_needed", "vllm_installed", "starting_worker"}


def pytest_configure() -> None:
    for name in (
        "COLUMNS",
        "LINES",
    ):  # which readline sets in the first process; a test's terminal has a size of its own
        os.environ.pop(name, None)


@pytest.hookimpl(tryfirst=True)  # before tests are left out by their marks, and before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if _OF_VLLM.intersection(item.fixturenames):
            item.add_marker(pytest.mark.vllm)
        if item.get_closest_marker("vllm"):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.xdist_group("vllm"))
        elif _shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _shares_a_fixture(item: pytest.Function) -> bool:
    made = item._fixtureinfo.name2fixturedefs.values()
    return any(fixture.scope in {"module", "class"} for fixtures in made for fixture in fixtures)
