"""What a run of the tests promises holds as well where several processes share them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.scripts import ROOT

CONFTEST = 'pytest_plugins = ("support.figures", "support.left_behind", "support.spread")\n'
MARKS = "[pytest]\nmarkers =\n    slow\n    vllm\n"

pytestmark = pytest.mark.slow


def run(folder: Path, tests: str, *, processes: int) -> subprocess.CompletedProcess[str]:
    """Run these tests in a folder of their own, with the plugins that ours are run with."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text(MARKS)
    (folder / "test_it.py").write_text(tests)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", str(processes)],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("processes", [0, 2])
def test_a_process_that_is_left_behind_fails_the_run(tmp_path: Path, processes: int) -> None:
    tests = """
import subprocess
def test_it(): subprocess.Popen("sleep 18 >/dev/null 2>&1 &", shell=True).wait()
"""
    done = run(tmp_path, tests, processes=processes)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert re.search(r"left processes behind; still running:\n\d+ sleep 18", done.stdout)


@pytest.mark.parametrize("processes", [0, 2])
def test_figures_stand_at_the_end_in_the_order_of_their_trials(tmp_path: Path, processes: int) -> None:
    tests = """
import pytest
@pytest.mark.parametrize("number", [12, 3])
def test_it(number, record_property):
    record_property(f"trial {number}", f"figure {number}")
    assert number == 3
"""
    done = run(tmp_path, tests, processes=processes)
    assert "trial 3: figure 3\ntrial 12: figure 12\n" in done.stdout, done.stdout + done.stderr


def test_one_process_has_all_tests_of_vllm_and_all_that_share_a_fixture(tmp_path: Path) -> None:
    tests = """
import pytest, time
@pytest.fixture(scope="module")
def shared(): pass
@pytest.mark.vllm
@pytest.mark.parametrize("number", range(6))
def test_of_vllm(number): time.sleep(0.2)
@pytest.mark.parametrize("number", range(6))
def test_that_shares(number, shared): time.sleep(0.2)
@pytest.mark.parametrize("number", range(6))
def test_of_its_own(number): time.sleep(0.2)
"""
    done = run(tmp_path, tests, processes=3)
    passed = re.findall(r"\[(gw\d)\].*PASSED test_it.py::(\w+)", done.stdout)
    assert len(passed) == 18, done.stdout + done.stderr
    by_name = {name: {worker for worker, other in passed if other == name} for _, name in passed}
    assert len(by_name["test_of_vllm"]) == len(by_name["test_that_shares"]) == 1
    assert by_name["test_of_vllm"] != by_name["test_that_shares"]
