"""`inferbus serve`, one part of which is stuck while a file is there: the tokenizer, or whatever writes to the disk.

`stuck_worker.py PART FILE ARGUMENT…`: the tokenizer at a text with `stuck` in it, the disk at every write.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path
from typing import Any

from inferbus_worker.bus.attempts import Attempts
from inferbus_worker.engines.simulated import SimulatedEngine

count_tokens, write = SimulatedEngine.count_tokens, Attempts._try


def main(part: str, file: Path) -> None:
    def wait() -> None:
        while file.exists():
            time.sleep(0.02)

    def counted(self: SimulatedEngine, text: str) -> int:
        if "stuck" in text:
            wait()
        return count_tokens(self, text)

    def written(self: Attempts, change: Any) -> None:
        wait()
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
    _, part, file, *sys.argv[1:] = sys.argv
    main(part, Path(file))
