"""`python -m inferbus_worker.demo.lifeline …` is `inferbus …` that ends when the program that started it does.

The starter keeps the write end of this process' standard input and never writes. The kernel closes that end however
the starter dies, SIGKILL included, and the end of file tells us.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Final

from inferbus_client.cli.main import main

#: Seconds for an orderly stop, before the end that nothing can delay. The engine's processes follow either.
_PATIENCE: Final = 5.0


def watch(lifeline: int) -> None:
    """End this process, in order if that is quick, when the file descriptor `lifeline` reaches its end."""
    threading.Thread(target=_wait_for_the_end, args=(lifeline,), name="lifeline", daemon=True).start()


def _wait_for_the_end(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    watch(os.dup(sys.stdin.fileno()))
    main()
