"""A plugin of pytest: which tests stay together where several processes share them (`-n 4`).

Most tests wait more than they compute, so four processes are no crowd on two cores. Three kinds are apart:

- `vllm`: starts a real vLLM. One process has them all, so that no more of them run at once than in a serial run.
- `alone`: holds somebody to a bound in time that other tests would take from it. `scripts/test` runs these when
  all else is done.
- Tests with a fixture of their module or class: they share it, so one process has the module.

xdist has a mark for groups, which it writes into the names of tests; pytest 9.2 does not let it any more, and the mark
does nothing. So the groups go from the process that collects to the one that deals through a file.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

#: Fixtures that start a vLLM, or import it, which takes a process half a minute and a gigabyte.
_OF_VLLM: Final = {"vllm_needed", "vllm_installed", "starting_worker", "vllm_server"}
_KEY: Final = "file_of_groups"


_FOLDER: Final = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


class _Groups(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Deals out the groups, the largest first, and then one by one what is in none."""

    def schedule(self) -> None:
        """Called when all have collected, and again for a process that takes the place of one that crashed."""
        file = _file(self.config)
        self._groups: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)


def _file(config: pytest.Config) -> Path:
    return Path(config.stash[_FOLDER].name) / "groups.json"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FOLDER] = tempfile.TemporaryDirectory(prefix="inferbus-tests-")
    # readline sets these in the first process; a test's terminal has a size of its own.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_FOLDER].cleanup()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the process that deals, before another one is started."""
    node.workerinput[_KEY] = str(_file(node.config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _Groups(config, log)


@pytest.hookimpl(tryfirst=True)  # before tests are left out by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    groups = {}
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if _OF_VLLM.intersection(item.fixturenames):
            item.add_marker(pytest.mark.vllm)
        if item.get_closest_marker("vllm"):
            item.add_marker(pytest.mark.slow)
            groups[item.nodeid] = "vllm"
        elif _shares_a_fixture(item):
            groups[item.nodeid] = str(item.path)
    given: dict[str, str] = getattr(config, "workerinput", {})
    if given.get("workerid") == "gw0":  # all of them collect the same
        Path(given[_KEY]).write_text(json.dumps(groups))


def _shares_a_fixture(item: pytest.Function) -> bool:
    made = item._fixtureinfo.name2fixturedefs.values()
    return any(fixture.scope in {"module", "class"} for fixtures in made for fixture in fixtures)
