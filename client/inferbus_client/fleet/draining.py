"""Have a worker finish what it has, and leave: what SIGTERM does, over the bus."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.errors import DrainIgnoredError, RequestTimeoutError, UnknownWorkerError
from inferbus_client.fleet.watch import Watch, WorkerView
from inferbus_client.settings.client import ClientSettings

#: A worker says at once that it drains; it may be on a busy machine.
_HEEDS: Final = 5.0
_ASK_EVERY: Final = 2.0

#: Told what is known of the worker, each time that there may be more.
Progress = Callable[[WorkerView], None]


def drain(
    settings: ClientSettings, client_id: str, worker: str, *, wait: float, progress: Progress = lambda _view: None
) -> bool:
    """Ask a worker to leave, and return when it has gone; at once where it has gone already.

    Args:
        settings: how to reach the broker.
        client_id: the MQTT client id.
        worker: which one.
        wait: seconds that it may take; it goes on to drain all the same.
        progress: told how far it is.

    Returns:
        Whether it was there to be asked. One that was not may have died, and left in no order.

    Raises:
        UnknownWorkerError: there is none of that name.
        DrainIgnoredError: it does not react.
        RequestTimeoutError: it has not gone in that time.
        BrokerError: no connection.
    """
    with Watch(settings, client_id) as watch:
        watch.gather()
        view = watch.workers.get(worker)
        if view is None:
            raise UnknownWorkerError(worker, [name for name, one in watch.workers.items() if not one.is_gone])
        return _Drain(watch, worker, view, progress).run(wait)


class _Drain:
    """One worker's way out, as others see it."""

    def __init__(self, watch: Watch, worker: str, view: WorkerView, progress: Progress) -> None:
        self._watch = watch
        self._worker = worker
        self._run = _run_of(view.presence)
        self._progress = progress

    def run(self, wait: float) -> bool:
        ends = time.monotonic() + wait
        if self._watch.wait_for(self._has_left, 0):
            return False
        self._watch.send(topics.drain(self._worker))
        if not self._watch.wait_for(self._heeds, min(_HEEDS, wait)):
            raise DrainIgnoredError(self._worker)
        while not self._watch.wait_for(self._has_left, min(_ASK_EVERY, max(ends - time.monotonic(), 0))):
            if time.monotonic() >= ends:
                raise RequestTimeoutError(f"end of worker {self._worker!r}", wait)
            self._watch.ask()
            view = self._watch.workers.get(self._worker)
            if view is not None:
                self._progress(view)
        return True

    def _has_left(self, workers: dict[str, WorkerView]) -> bool:
        """Also where another run has taken its place since, or an operator has removed its last word."""
        view = workers.get(self._worker)
        return view is None or view.is_gone or _run_of(view.presence) != self._run

    def _heeds(self, workers: dict[str, WorkerView]) -> bool:
        if self._has_left(workers):
            return True
        presence = workers[self._worker].presence
        return presence is not None and presence.state == "draining"


def _run_of(presence: Presence | None) -> str | None:
    return None if presence is None or presence.instance is None else presence.instance.mark
