"""The README's tour is executed, so that it stays true.

A fenced block whose line before is `<!-- tour -->` is one terminal; the terminals open in order, each when the one
before is ready, and the last one must end well. A fenced block after `<!-- tour output -->` holds lines that somebody
must have printed by then. The tour runs on a broker of its own: wherever it says 1883, or leaves the port out.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from typing import Final

from inferbus_client import topics
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.needs import needs_module, needs_program
from support.scripts import ROOT, Running
from support.waiting import until

README: Final = ROOT / "README.md"
BLOCK: Final = r"^<!-- {} -->\n```\w*\n(.*?)^```$"
PRELUDE: Final = r"""
set -euo pipefail
for program in mosquitto_pub mosquitto_sub mosquitto_rr; do
  eval "$program() { command $program -p $TOUR_PORT \"\$@\"; }"
done
"""


def blocks(mark: str) -> list[str]:
    pattern = re.compile(BLOCK.format(re.escape(mark)), re.MULTILINE | re.DOTALL)
    return [match[1] for match in pattern.finditer(README.read_text())]


def test_the_readme_has_a_tour() -> None:
    assert blocks("tour")
    assert blocks("tour output")


def test_the_tour_does_what_it_says() -> None:
    needs_module("vllm")
    needs_program("mosquitto_sub")
    with Mosquitto("log_type subscribe") as broker, ExitStack() as open_terminals:
        terminals: list[Terminal] = []
        for block in blocks("tour"):
            if terminals:
                terminals[-1].wait_until_ready(broker)
            terminals.append(open_terminals.enter_context(Terminal(broker, block)))
        assert terminals[-1].wait(60) == 0, terminals[-1].err
        for line in "".join(blocks("tour output")).splitlines():
            _wait_for_line(line, terminals)


class Terminal(Running):
    """One block of the tour, in a shell that knows the broker's port."""

    def __init__(self, broker: Mosquitto, block: str) -> None:
        self.block = re.sub(r"\b1883\b", str(broker.port), block)
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        env = {"PATH": path, "TOUR_PORT": str(broker.port), "INFERBUS_BROKER": broker.url}
        self._subscriptions_before = _subscriptions(broker)
        super().__init__(["bash", "-c", PRELUDE + self.block], env)

    def wait_until_ready(self, broker: Mosquitto) -> None:
        """A worker that it starts is ready, a subscription is made: then the reader goes on to the next terminal."""
        if "inferbus serve" in self.block:
            with Listener(broker, topics.presence("+")) as presence:
                until(lambda: any('"ready"' in heard.text for heard in presence.heard), 120)
        elif "mosquitto_sub" in self.block:
            until(lambda: _subscriptions(broker) > self._subscriptions_before)


def _subscriptions(broker: Mosquitto) -> int:
    """How many subscriptions were made so far; Mosquitto logs `CLIENT QOS FILTER` for each."""
    return len(re.findall(r"^\d+: \S+ [012] \S+$", broker.log, re.MULTILINE))


def _wait_for_line(line: str, terminals: list[Terminal]) -> None:
    try:
        until(lambda: any(line in terminal.out for terminal in terminals), 30)
    except AssertionError:
        shown = "\n".join(f"$ {terminal.block}{terminal.out}{terminal.err}" for terminal in terminals)
        raise AssertionError(f"nobody printed {line!r}:\n{shown}") from None
