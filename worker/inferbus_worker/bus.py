"""The worker's place on the bus: subscriptions, presence, Last Will. Knows MQTT, knows nothing of models."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from inferbus_client import topics
from inferbus_client.link import Link
from inferbus_client.link_options import Incoming, Will
from inferbus_client.presence import Presence, State, Stats
from inferbus_worker.replies import Replies
from inferbus_worker.reply_stream import Outgoing
from inferbus_worker.settings import Settings


class Bus:
    """One link, the subscriptions of every project, and what the worker says about itself.

    Args:
        settings: the worker's.
        replies: the sender; everything that is published goes through it.
        receive: called in the network thread for every message.
        model: the name of what is served, for presence.
    """

    def __init__(
        self, settings: Settings, *, replies: Replies, receive: Callable[[Incoming], None], model: str
    ) -> None:
        self._settings = settings
        self._replies = replies
        self._presence = self._presence_as("loading", model, None)
        will = Will(
            topics.presence(settings.worker_id), self._presence.model_copy(update={"state": "offline"}).encode()
        )
        self.link = Link(
            settings.link_options(f"inferbus-worker-{settings.worker_id}", **_delivery(settings)),
            on_message=receive,
            on_up=self._say_presence,
            will=will,
        )

    def start(self) -> None:
        """Connect and subscribe. From here on every request gets an answer, if only that the model is loading.

        Raises:
            BrokerError: with the reason, after `broker_timeout` seconds at most.
        """
        self.link.connect(self._settings.broker_timeout)
        self._replies.start(self.link)
        users = self._settings.identity == "topic"
        filters = [name for project in self._settings.projects for name in topics.inbound_filters(project, users=users)]
        self.link.subscribe(dict.fromkeys(filters, self._settings.request_qos))

    def announce(self, state: State, *, model: str | None = None, capacity: int | None = None) -> None:
        """Publish a new state, retained."""
        before = self._presence
        self._presence = self._presence_as(state, model or before.model, capacity or before.capacity)
        self._say_presence()

    def publish_stats(self, stats: Stats) -> None:
        self._replies.post(Outgoing(topics.stats(self._settings.worker_id), stats.encode(), json=True, qos=0))

    def close(self, timeout: float) -> None:
        self.link.close(timeout)

    def _presence_as(self, state: State, model: str | None, capacity: int | None) -> Presence:
        return Presence(
            worker=self._settings.worker_id,
            state=state,
            model=model,
            projects=tuple(self._settings.projects),
            capacity=capacity,
            since=round(time.time(), 3),
        )

    def _say_presence(self) -> None:
        """Also after every reconnect: the broker has published the Last Will meanwhile."""
        topic = topics.presence(self._settings.worker_id)
        self._replies.post(Outgoing(topic, self._presence.encode(), json=True, retain=True, qos=1))


def _delivery(settings: Settings) -> dict[str, Any]:
    """How the broker is to deliver requests: what link options acknowledging after the reply takes."""
    if settings.ack == "on-receipt":
        return {}
    # What can be held: everything in the queue and in the engine (MQTT 5.0, section 3.1.2.11.3: two bytes).
    held = min(settings.queue_size + settings.workers, 65535)
    return {"manual_ack": True, "session_expiry": int(settings.session_expiry), "receive_maximum": held}
