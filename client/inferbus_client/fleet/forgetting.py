"""Forget a worker that will not come back: its retained presence would be there for ever."""

from __future__ import annotations

from typing import Final

from inferbus_client.contract import topics
from inferbus_client.errors import BrokerRefusedError, UnknownWorkerError, WorkerLivesError
from inferbus_client.fleet.watch import Watch
from inferbus_client.settings.client import ClientSettings

#: A worker answers at most once a second, and perhaps on a busy machine.
_ANSWER: Final = 3.0
_CLEARED: Final = 3.0


def forget(settings: ClientSettings, client_id: str, worker: str, *, force: bool = False) -> None:
    """Remove what the broker keeps of a worker.

    Args:
        settings: how to reach the broker.
        client_id: the MQTT client id.
        worker: which one.
        force: also one that lives; it is there again with the next thing that it says of itself.

    Raises:
        UnknownWorkerError: there is none of that name.
        WorkerLivesError: it answers.
        BrokerError: no connection, or the broker does not let us.
    """
    with Watch(settings, client_id) as watch:
        watch.gather()
        view = watch.workers.get(worker)
        if view is None:
            raise UnknownWorkerError(worker, list(watch.workers))
        if not force and not view.is_gone and _lives(watch, worker):
            raise WorkerLivesError(worker)
        if not watch.clear(worker, _CLEARED):
            topic = topics.presence(worker)
            raise BrokerRefusedError(f"the broker still has what {worker} said; may this login publish to {topic}?")


def _lives(watch: Watch, worker: str) -> bool:
    """Whether it answers. Presence alone may be left over from one that was killed, with its broker."""
    asked = watch.ask()
    watch.answered(asked, _ANSWER, [worker])
    view = watch.workers.get(worker)  # somebody else may have forgotten it meanwhile
    return view is not None and view.has_answered(asked)
