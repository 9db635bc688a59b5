"""`inferbus`, whose network thread dies when a message says `die`: what no exception handler catches."""

from __future__ import annotations

import sys

from inferbus_client.cli.main import main
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.admission.reception import Reception

receive = Reception.receive


def receive_or_die(self: Reception, message: Incoming) -> None:
    if message.payload == b"die":
        sys.exit()  # in a thread: it ends, and nobody hears of it
    receive(self, message)


if __name__ == "__main__":
    Reception.receive = receive_or_die  # type: ignore[method-assign]
    main()
