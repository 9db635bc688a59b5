"""A real Chromium with a page in it, driven by Playwright in Node, one step after the other."""

from __future__ import annotations

import json
import subprocess
from types import TracebackType
from typing import Any, Self

from support.needs import needs_program
from support.node import with_packages
from support.waiting import PATIENCE, until


class Browser:
    """A context manager. A step that fails raises AssertionError with Playwright's words."""

    def __enter__(self) -> Self:
        command = [needs_program("node"), str(with_packages() / "page.mjs"), needs_program("chromium")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(PATIENCE)

    def do(self, verb: str, **rest: Any) -> Any:
        """One step of tests/node/page.mjs; what it gives."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **rest}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the browser has ended"
        answer = json.loads(line)
        assert "error" not in answer, f"{verb} {rest}: {answer['error']}"
        return answer["result"]

    def see(self, at: str, text: str, seconds: float = PATIENCE) -> None:
        """Wait until an element that is visible has this in its text."""
        self.do("see", at=at, text=text, timeout=int(seconds * 1000))

    def ask(self, message: str) -> None:
        """Type a message, and send it with Enter."""
        self.do("fill", at="#message", text=message)
        self.do("click", at="#message")
        self.do("press", key="Enter")

    def is_well(self, *but: str) -> None:
        """Nothing was complained of, but for lines that contain one of these."""
        problems = [one for one in self.do("problems") if not any(word in one for word in but)]
        assert problems == []


def open_page(browser: Browser, bus: Any, view: str = "", **how: Any) -> None:
    """The chat, or the view that is named, once there is something in it."""
    browser.do("open", url=bus.url + view, **how)
    if view == "#bus":
        browser.see("#workers tbody", "0/2")  # it has told its figures
    else:
        until(lambda: browser.do("evaluate", code="document.getElementById('target').value") == "general")
