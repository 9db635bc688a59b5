"""`inferbus serve`, one part of which is stuck for a while: the tokenizer, or whatever writes to the disk.

`stuck_worker.py PART SECONDS ARGUMENT…`: the tokenizer at a text with `stuck` in it, the disk at every write.
"""

from __future__ import annotations

import runpy
import sys
import time
from typing import Any

from inferbus_worker.bus.attempts import Attempts
from inferbus_worker.engines.simulated import SimulatedEngine

count_tokens, write = SimulatedEngine.count_tokens, Attempts._try


def main(part: str, seconds: float) -> None:
    def counted(self: SimulatedEngine, text: str) -> int:
        if "stuck" in text:
            time.sleep(seconds)
        return count_tokens(self, text)

    def written(self: Attempts, change: Any) -> None:
        time.sleep(seconds)
        write(self, change)

    if part == "tokenizer":
        SimulatedEngine.count_tokens = counted  # type: ignore[method-assign]
    else:
        # The first one opens the file, before there is a connection; nobody waits for it in the network thread.
        opened: list[Attempts] = []

        def written_later(self: Attempts, change: Any) -> None:
            if opened:
                written(self, change)
            else:
                opened.append(self)
                write(self, change)

        Attempts._try = written_later  # type: ignore[method-assign]
    runpy.run_module("inferbus_worker.demo.lifeline", run_name="__main__")


if __name__ == "__main__":
    _, part, seconds, *sys.argv[1:] = sys.argv
    main(part, float(seconds))
