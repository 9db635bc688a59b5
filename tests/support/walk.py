"""A worker that notes which of our files a plain request passes: `python -m support.walk HOST PORT`.

In a process of its own, since Python tells of calls only in threads that begin after it was asked to.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import inferbus_client
import inferbus_worker
from inferbus_client.contract import topics
from inferbus_worker.daemon import Daemon
from inferbus_worker.engines.factory import only
from inferbus_worker.engines.simulated import Behaviour, SimulatedEngine
from inferbus_worker.settings.worker import Settings
from support.listener import Listener
from support.waiting import until

WINGS: Final = [Path(str(wing.__file__)).parent for wing in (inferbus_client, inferbus_worker)]


@dataclass(frozen=True)
class Where:
    """A broker."""

    host: str
    port: int


class Noting:
    """Which files have had something called in them, while `is_on`."""

    def __init__(self) -> None:
        self.is_on = False
        self.files: set[Path] = set()
        threading.setprofile(self._called)

    def _called(self, frame: FrameType, event: str, _argument: object) -> None:
        file = Path(frame.f_code.co_filename)
        # What looks whether there are threads enough is no part of the way.
        is_on = self.is_on and threading.current_thread().name != "worker-pool"
        if is_on and event == "call" and any(wing in file.parents for wing in WINGS):
            self.files.add(file)


def main(host: str, port: str) -> int:
    """Serve, have one request answered, print what it passed."""
    where, noting = Where(host, int(port)), Noting()
    settings = Settings.load({"broker": f"mqtt://{host}:{port}", "worker_id": "walked", "workers": "1"})
    asking = threading.Thread(target=ask, args=(where, noting))
    asking.start()
    status = Daemon(settings, only(SimulatedEngine(Behaviour()))).run()
    asking.join()
    for file in sorted(noting.files):
        wing = next(wing for wing in WINGS if wing in file.parents)
        sys.stdout.write(f"{wing.name} {file.relative_to(wing)}\n")
    return status


def ask(where: Where, noting: Noting) -> None:
    """One request to arrive in the worker's stride, and the one that is followed; then the worker ends."""
    try:
        with Listener(where, topics.presence("walked")) as presence:
            until(lambda: any('"ready"' in heard.text for heard in presence.heard))
        with Listener(where, "general/assistant_response/#") as listener:
            for number, is_followed in enumerate((False, True), 1):
                noting.is_on = is_followed
                listener.publish("general/user_input", f'{{"sessionId": "s{number}", "message": "hello there"}}')
                listener.wait(number)
        noting.is_on = False
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
