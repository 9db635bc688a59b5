"""What a worker listens to on its link: what it needs, and what it can do without."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from inferbus_client.errors import BrokerError, ConnectionLostError
from inferbus_client.mqtt.link import Link

log = logging.getLogger("inferbus.bus")

_LOOK_EVERY: Final = 0.1


class Listening:
    """Subscribes, for a thread that may wait.

    Args:
        link: on which.
        timeout: seconds that a lost connection may take to come back meanwhile.
    """

    def __init__(self, link: Link, timeout: float) -> None:
        self._link = link
        self._timeout = timeout

    def try_for(self, filters: Mapping[str, int], without: str, stop: Callable[[], bool]) -> bool:
        """Subscribe to what we can do without: a broker may refuse it, or disconnect whoever asks."""
        try:
            self._link.subscribe(filters, stop=stop)
        except BrokerError as error:
            if stop():
                raise
            log.info("%s cannot be read (%s): %s", ", ".join(filters), error.reason, without)
            self.end(filters)
            return False
        return True

    def begin(self, filters: Mapping[str, int], stop: Callable[[], bool]) -> None:
        """Subscribe, also where a rival takes the connection meanwhile: the link comes back.

        Raises:
            BrokerError: it is refused, or the link does not come back.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return self._link.subscribe(filters, stop=stop)
            except ConnectionLostError as lost:
                self._wait_up(deadline, lost, stop)

    def end(self, filters: Iterable[str]) -> None:
        """Unsubscribe, without waiting for the broker."""
        for name in filters:
            self._link.unsubscribe(name)

    def _wait_up(self, deadline: float, lost: ConnectionLostError, stop: Callable[[], bool]) -> None:
        """Wait for the link to come back; raises `lost` when `deadline` has passed, or it never will."""
        while time.monotonic() <= deadline and not stop():
            if self._link.wait_up(_LOOK_EVERY):
                return
        raise lost
