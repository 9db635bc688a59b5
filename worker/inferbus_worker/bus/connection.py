"""The worker's place on the bus: subscriptions, presence, Last Will. Knows MQTT, knows nothing of models."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, State, Stats, decode_announcement
from inferbus_client.errors import AlreadyServedError, BrokerError, ConnectionLostError, IdTakenError
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import Will
from inferbus_worker.bus.company import FILTERS, Company
from inferbus_worker.bus.rivals import Rivals, new_instance
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.replies.sender import Sender
from inferbus_worker.settings.worker import Settings

log = logging.getLogger("inferbus.bus")

_LOOK_EVERY: Final = 0.1
#: Anyone may write our presence where there are no access rules: it is put right once a second at most.
_SAY_EVERY: Final = 1.0


class Bus:
    """One link, the subscriptions of every project, and what the worker says about itself.

    Args:
        settings: the worker's.
        sender: the sender; everything that is published goes through it.
        receive: called in the network thread for every message.
        asked: called there when somebody asks for the stats.
        came_up: called there, before any message, on every new connection.
        model: the name of what is served, for presence.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sender: Sender,
        receive: Callable[[Incoming], None],
        asked: Callable[[], None],
        came_up: Callable[[], None],
        model: str,
    ) -> None:
        self._settings = settings
        self._sender = sender
        self._receive = receive
        self._asked = asked
        self._came_up = came_up
        self._topic = topics.presence(settings.worker_id)
        self._stats_request = topics.stats_request(settings.worker_id)
        self._instance = new_instance()
        self._rivals = Rivals(settings.worker_id, self._instance)
        #: Only while we look whether another worker serves our projects.
        self._company: Company | None = None
        users = settings.identity == "topic"
        self._requests = [name for each in settings.projects for name in topics.inbound_filters(each, users=users)]
        self._presence = self._presence_as("loading", model, None)
        self._deaf_since: float | None = None
        #: Another serves our projects: a worker that never served is not to be seen in `status`, not even as offline.
        self._withdrawn = False
        #: Somebody else's word stands in the place of ours, since when we last said ours.
        self._overwritten, self._said = False, -math.inf
        self.link = Link(
            settings.link_options(f"inferbus-worker-{settings.worker_id}", **_delivery(settings)),
            on_message=self._received,
            on_up=self._begin_connection,
            on_down=self._connection_lost,
            will=self._will(),
            when_refused=lambda name, _error: name in self._requests,
            holds_out=self._rivals.hold_out,
        )

    def start(self, stop: Callable[[], bool]) -> None:
        """Connect, look who else is there, subscribe. From here on every request gets an answer, if only "loading".

        Args:
            stop: asked all the time whether to break off; does what has to be done meanwhile.

        Raises:
            BrokerError: with the reason, after `broker_timeout` seconds at most; another worker that serves our
                projects is one, and being told to stop.
        """
        self.link.connect(self._settings.broker_timeout, stop)
        try:
            self._join(lambda: stop() or self.link.fatal is not None)
        except ConnectionLostError as lost:
            raise self.link.fatal or lost from None

    def _join(self, stop: Callable[[], bool]) -> None:
        # Before our own presence, which the sender is to publish, replaces what is there.
        self._listen({self._topic: 0}, "a second worker of our id would go unnamed", stop)
        self._listen({self._stats_request: 0}, "nobody can ask for the stats", stop)
        self._listen_for_company(stop)
        self._sender.start(self.link)
        self._look_around(stop)
        self._subscribe(dict.fromkeys(self._requests, self._settings.request_qos), stop)

    def announce(
        self,
        state: State,
        *,
        model: str | None = None,
        capacity: int | None = None,
        models: Mapping[str, str] | None = None,
    ) -> None:
        """Publish a new state, retained; what is not said stays as it was.

        Args:
            state: the worker's.
            model: the one that answers where a request names none.
            capacity: how many requests run at once.
            models: what each model does, by name.
        """
        before = self._presence
        said = before.models if models is None else dict(models)
        presence = self._presence_as(state, model or before.model, capacity or before.capacity)
        since = before.since if state == before.state else presence.since
        self._presence = presence.model_copy(update={"models": said, "since": since})
        self._say_presence()

    def watch_hearing(self) -> None:
        """Be `ready` only while requests can be heard; for the main thread, every now and then.

        Raises:
            BrokerRefusedError: the broker has refused a subscription for `broker_timeout` seconds.
        """
        unheard, now = self.link.unheard, time.monotonic()
        if self._overwritten and now - self._said > _SAY_EVERY:
            self._say_presence()
        if unheard is None:
            if self._deaf_since is not None:
                self._deaf_since = None
                log.info("every subscription is granted again")
                self._say_presence()
            return
        if self._deaf_since is None:
            self._deaf_since = now
            self._say_presence()
        if now - self._deaf_since > self._settings.broker_timeout:
            raise unheard

    def publish_stats(self, stats: Stats) -> None:
        stats = stats.model_copy(update={"joining": self._company is not None})
        self._sender.post(Outgoing(topics.stats(self._settings.worker_id), stats.encode(), json=True, qos=0))

    def close(self, timeout: float) -> None:
        self.link.close(timeout)

    def _listen(self, filters: Mapping[str, int], without: str, stop: Callable[[], bool]) -> bool:
        """Subscribe to what we can do without: a broker may refuse it, or disconnect whoever asks."""
        try:
            self.link.subscribe(filters, stop=stop)
        except BrokerError as error:
            if stop():
                raise
            log.info("%s cannot be read (%s): %s", ", ".join(filters), error.reason, without)
            self._unsubscribe(filters)
            return False
        return True

    def _unsubscribe(self, filters: Iterable[str]) -> None:
        for name in filters:
            self.link.unsubscribe(name)

    def _listen_for_company(self, stop: Callable[[], bool]) -> None:
        """Also before our own presence, by whose return we know that all others' have come."""
        if self._settings.alongside:
            return
        self._company = Company(self._presence.model_copy(update={"instance": self._instance}), self._ask)
        without = "whether another worker serves our projects is not known"
        if not self._listen(dict.fromkeys(FILTERS, 0), without, stop):
            self._company = None

    def _look_around(self, stop: Callable[[], bool]) -> None:
        if self._company is not None:
            try:
                self._company.look_around(lambda: not stop())
            except AlreadyServedError:
                self._withdrawn = True
                raise
            self._company = None
            self._unsubscribe(FILTERS)

    def _ask(self, worker: str) -> None:
        self.link.publish(topics.stats_request(worker), b"")

    def _subscribe(self, filters: Mapping[str, int], stop: Callable[[], bool]) -> None:
        """Subscribe, also where a rival takes the connection meanwhile: the link comes back."""
        deadline = time.monotonic() + self._settings.broker_timeout
        while True:
            try:
                return self.link.subscribe(filters, stop=stop)
            except ConnectionLostError as lost:
                self._wait_up(deadline, lost, stop)

    def _wait_up(self, deadline: float, lost: ConnectionLostError, stop: Callable[[], bool]) -> None:
        """Wait for the link to come back; raises `lost` when `deadline` has passed, or it never will."""
        while time.monotonic() <= deadline and not stop():
            if self.link.wait_up(_LOOK_EVERY):
                return
        raise lost

    def _received(self, message: Incoming) -> None:
        if message.topic == self._stats_request:
            self._asked()
        elif topics.is_announcement(message.topic):
            self._heard_of_workers(message)
        else:
            self._receive(message)

    def _heard_of_workers(self, message: Incoming) -> None:
        company = self._company  # the main thread may end it meanwhile
        if company is not None:
            company.heard(message.topic, message.payload)
        if message.topic == self._topic:
            self._heard_of_us(message)

    def _heard_of_us(self, message: Incoming) -> None:
        presence = decode_announcement(Presence, message.payload)
        if presence is None:
            return
        # A Last Will may come late, of a second worker or of our own last connection: the main thread says ours again.
        self._overwritten = presence.state == "offline" and presence.instance != self._instance
        if presence.instance is not None:
            reason = self._rivals.heard(presence.instance, self._instance.connection)
            if reason is not None:
                self.announce("offline")
                self.link.give_up(IdTakenError(reason))

    def _begin_connection(self) -> None:
        self._came_up()
        self._say_presence()

    def _connection_lost(self) -> None:
        """The next one counts as another, in presence and Last Will."""
        self._instance = self._instance.model_copy(update={"connection": self._instance.connection + 1})
        self.link.set_will(self._will())

    def _will(self) -> Will:
        offline = self._presence.model_copy(update={"state": "offline", "instance": self._instance})
        return Will(self._topic, offline.encode())

    def _presence_as(self, state: State, model: str | None, capacity: int | None) -> Presence:
        return Presence(
            worker=self._settings.worker_id,
            state=state,
            model=model,
            projects=tuple(self._settings.projects),
            identity=self._settings.identity,
            choices=self._settings.model_choices,
            capacity=capacity,
            since=round(time.time(), 3),
        )

    def _say_presence(self) -> None:
        """Also after every reconnect: the broker has published the Last Will meanwhile."""
        state = self._presence.state
        if state == "ready" and self._deaf_since is not None:
            state = "loading"
        presence = self._presence.model_copy(update={"state": state, "instance": self._instance})
        # `draining` is not acknowledged: if the broker reads it only after we have gone, what it writes back must not
        # show it a dead connection before it has read the replies that follow.
        qos = 0 if presence.state == "draining" else 1
        payload = b"" if self._withdrawn else presence.encode()
        self._overwritten, self._said = False, time.monotonic()
        self._sender.post(Outgoing(self._topic, payload, json=True, retain=True, qos=qos))


def receive_maximum(settings: Settings) -> int:
    """What can be held unacknowledged: the queue's size, and what runs for certain (MQTT 5.0, section 3.1.2.11.3)."""
    return min(settings.queue_size + max(settings.workers, settings.max_workers or 0), 65535)


def _delivery(settings: Settings) -> dict[str, Any]:
    """How requests are taken in and replies sent: how much of each, and what acknowledging after the reply takes."""
    # What admission reads of a request that is too large, and once its limit for all that a packet holds besides.
    largest = settings.readable_bytes + settings.largest_request_bytes
    always = {"own_window": True, "max_incoming_bytes": largest}
    if settings.ack == "on-receipt":
        return always
    held = receive_maximum(settings)
    return {**always, "manual_ack": True, "session_expiry": int(settings.session_expiry), "receive_maximum": held}
