"""The worker's place on the bus: subscriptions, presence, Last Will. Knows MQTT, knows nothing of models."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, State, Stats, decode_announcement
from inferbus_client.errors import AlreadyServedError, ConnectionLostError, IdTakenError, NoSharesError
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import Will
from inferbus_worker.bus.company import FILTERS, Company
from inferbus_worker.bus.delivery import delivery, forget_session
from inferbus_worker.bus.listening import Listening
from inferbus_worker.bus.rivals import Rivals, new_instance
from inferbus_worker.bus.share import Share
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.replies.sender import Sender
from inferbus_worker.settings.worker import Settings

log = logging.getLogger("inferbus.bus")

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
        drain_asked: called there when an operator asks this worker to finish and leave, where `remote_drain` is on.
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
        drain_asked: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._sender = sender
        self._receive = receive
        self._asked = asked
        self._came_up = came_up
        #: The workers that share requests; None where this one has them to itself.
        self._group = settings.group if settings.is_shared else None
        self._store: str | None = None
        self._drain_asked = drain_asked
        self._topic = topics.presence(settings.worker_id)
        self._stats_request = topics.stats_request(settings.worker_id)
        self._drain_request = topics.drain(settings.worker_id)
        self._instance = new_instance()
        self._rivals = Rivals(settings.worker_id, self._instance)
        #: Only while we look whether another worker serves our projects.
        self._company: Company | None = None
        users = settings.identity == "topic"
        requests = [name for each in settings.projects for name in topics.dealt_filters(each, users=users)]
        self._cancels = [topics.cancel_filter(each, users=users) for each in settings.projects]
        self._presence = self._presence_as("loading", model, None)
        self._deaf_since: float | None = None
        #: Another serves our projects: a worker that never served is not to be seen in `status`, not even as offline.
        self._withdrawn = False
        #: Somebody else's word stands in the place of ours, since when we last said ours.
        self._overwritten, self._said = False, -math.inf
        self._options = settings.link_options(f"inferbus-worker-{settings.worker_id}", **delivery(settings))
        self.link = Link(
            self._options,
            on_message=self._received,
            on_up=self._begin_connection,
            on_down=self._connection_lost,
            will=self._will(),
            when_refused=lambda name, _error: name in self._needed,
            holds_out=self._rivals.hold_out,
        )
        self._listening = Listening(self.link, settings.broker_timeout)
        self._share = None
        if self._group is not None:
            self._share = Share(settings, self._group, self.link, self._listening, requests)
        #: Without these a worker is not to be called ready.
        self._needed = {*self._cancels, *(requests if self._share is None else self._share.filters)}
        self._left = False

    def start(self, stop: Callable[[], bool], store: str | None = None) -> None:
        """Connect, look who else is there, subscribe. From here on every request gets an answer, if only "loading".

        In a group others answer requests until we `join`; whether the broker can deal them out is found out here.

        Args:
            stop: asked all the time whether to break off; does what has to be done meanwhile.
            store: the mark of what a group shares.

        Raises:
            BrokerError: with the reason, after `broker_timeout` seconds at most; another worker that serves our
                projects is one, and being told to stop.
        """
        self._store = store
        self._presence = self._presence.model_copy(update={"store": store})
        self.link.set_will(self._will())
        self.link.connect(self._settings.broker_timeout, stop)
        try:
            self._begin(lambda: stop() or self.link.fatal is not None)
        except ConnectionLostError as lost:
            raise self.link.fatal or lost from None

    def _begin(self, stop: Callable[[], bool]) -> None:
        # Before our own presence, which the sender is to publish, replaces what is there.
        self._listening.try_for({self._topic: 0}, "a second worker of our id would go unnamed", stop)
        self._listening.try_for({self._stats_request: 0}, "nobody can ask for the stats", stop)
        self._listen_for_company(stop)
        self._sender.start(self.link)
        self._look_around(stop)
        if self._settings.remote_drain:
            self._listening.try_for({self._drain_request: 1}, "nobody can ask this worker to leave", stop)
        if self._share is None:
            self._listening.begin(dict.fromkeys(self._needed, self._settings.request_qos), stop)
            return
        self._listening.begin(dict.fromkeys(self._cancels, self._settings.request_qos), stop)
        try:
            self._share.prepare(stop)
        except NoSharesError:
            self._withdrawn = True
            raise

    def join(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Take our part in the group's requests from now on, or again after `leave`; nothing where there is no group.

        Args:
            stop: asked all the time whether to break off.

        Raises:
            BrokerError: the broker refuses, cannot share requests out, or the connection was lost.
        """
        if self._share is not None:
            self._left = False
            try:
                self._share.join(lambda: stop() or self.link.fatal is not None)
            except ConnectionLostError as lost:
                raise self.link.fatal or lost from None

    def leave(self, timeout: float) -> bool:
        """Have no more requests dealt to us. Nothing where there is no group, or no link.

        Returns:
            Whether all that was dealt to us has been received; then `close` has the broker forget us. Else it keeps for
            a worker of our id what it may still have, where messages are acknowledged after the reply.
        """
        self._left = self._share is not None and self._share.leave(timeout)
        return self._left

    def announce(
        self,
        state: State,
        *,
        model: str | None = None,
        capacity: int | None = None,
        models: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        """Publish a new state, retained; what is not said stays as it was, but for the reason.

        Args:
            state: the worker's.
            model: the one that answers where a request names none.
            capacity: how many requests run at once.
            models: what each model does, by name.
            reason: why it serves nobody although its model answers.
        """
        before = self._presence
        said = before.models if models is None else dict(models)
        presence = self._presence_as(state, model or before.model, capacity or before.capacity)
        since = before.since if state == before.state else presence.since
        self._presence = presence.model_copy(update={"models": said, "since": since, "reason": reason})
        self._say_presence()

    def watch_hearing(self) -> None:
        """Be `ready` only while requests can be heard; for the main thread, every now and then.

        Raises:
            BrokerRefusedError: the broker has refused a subscription for `broker_timeout` seconds.
            NoSharesError: another broker of several has taken us in, and cannot share a group's requests out.
        """
        if self._share is not None:
            self._share.look()
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
        """Disconnect in order, within `timeout` seconds; the broker forgets who has left."""
        deadline = time.monotonic() + timeout
        is_v5 = self.link.is_v5
        if self._left:
            self.link.forget_session()
        self.link.close(timeout)
        if self._left and not is_v5:
            forget_session(self._options, self.link.url, deadline - time.monotonic())

    def _listen_for_company(self, stop: Callable[[], bool]) -> None:
        """Also before our own presence, by whose return we know that all others' have come."""
        if self._settings.alongside:
            return
        self._company = Company(self._presence.model_copy(update={"instance": self._instance}), self._ask)
        without = "whether another worker serves our projects is not known"
        if not self._listening.try_for(dict.fromkeys(FILTERS, 0), without, stop):
            self._company = None

    def _look_around(self, stop: Callable[[], bool]) -> None:
        if self._company is not None:
            try:
                self._company.look_around(lambda: not stop())
            except AlreadyServedError:
                self._withdrawn = True
                raise
            self._company = None
            self._listening.end(FILTERS)

    def _ask(self, worker: str) -> None:
        self.link.publish(topics.stats_request(worker), b"")

    def _received(self, message: Incoming) -> None:
        if message.topic == self._stats_request:
            self._asked()
        elif message.topic == self._drain_request:
            self._heard_drain(message)
        elif self._share is not None and message.topic == self._share.topic:
            self._share.heard(message)
        elif topics.is_announcement(message.topic):
            self._heard_of_workers(message)
        else:
            if self._share is not None:
                self._share.dealt()
            self._receive(message)

    def _heard_drain(self, message: Incoming) -> None:
        """An operator's wish; one that is retained is an old one, of another run perhaps."""
        self.link.acknowledge(message.ack_id)
        if self._settings.remote_drain and not message.retain:
            log.info("asked over the bus to finish and leave")
            self._drain_asked()

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
        if self._share is not None:
            self._share.connection_lost()

    def _will(self) -> Will:
        # Nobody knows yet when that will be.
        offline = self._presence.model_copy(update={"state": "offline", "instance": self._instance, "since": None})
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
            group=self._group,
            store=self._store,
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
