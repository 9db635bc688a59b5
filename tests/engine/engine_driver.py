"""Run by tests as a process of its own: a worker reduced to its engine.

Prints `ready`, then one word per event, one a line. Commands on standard input: `generate N` answers with N
tokens, `generate` without end, `watch` waits for the engine's death, `stop` stops the engine and exits.
"""

from __future__ import annotations

import signal
import sys
import threading
import time

from inferbus_worker.engines.base import ChatCall, EngineError, EngineStartError, Sampling
from inferbus_worker.engines.vllm.engine import VllmEngine


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def generate(engine: VllmEngine, tokens: int | None) -> None:
    """Answer until there are so many tokens. The model may find an end by chance: then it is asked once more."""
    sampling = Sampling(2.0, 1.0, tokens or 100_000, {"min_p": 0.0, "repetition_penalty": 2.0})
    chat = ChatCall([{"role": "user", "content": "go on"}], sampling, stream=True)
    try:
        finish = "stop"
        while finish == "stop" or tokens is None:
            finish = engine.generate(chat, lambda text, _: say("text") if text else None).wait(None).finish_reason
        say("finished", finish)
    except EngineError as error:
        say("failed", type(error).__name__)


def main() -> None:
    engine = VllmEngine("demo", [])
    for number in (signal.SIGINT, signal.SIGTERM):  # as the daemon does: while it starts, a signal stops it
        signal.signal(number, lambda *_: engine.stop(5))
    try:
        engine.start()
    except EngineStartError as error:
        say("failed to start:", error)
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # and from now on it drains: we carry on
        signal.signal(number, lambda *_: None)
    say("ready")
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "generate":
            tokens = int(arguments[0]) if arguments else None
            threading.Thread(target=generate, args=(engine, tokens), daemon=True).start()
        elif command == "watch":
            while engine.death is None:
                time.sleep(0.01)
            say("dead")
        elif command == "stop":
            engine.stop(10)
            say("stopped")
            return


if __name__ == "__main__":
    main()
