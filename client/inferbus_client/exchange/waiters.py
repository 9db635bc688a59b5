"""Who waits for which reply: each goes to the request that it answers, and to nobody else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inferbus_client.contract.wire import Failure, InvalidReplyError, decode_reply
from inferbus_client.errors import InvalidRequestError
from inferbus_client.exchange.assembly import AnyReply
from inferbus_client.exchange.call import Call
from inferbus_client.exchange.steps import Deliver, Event, TextReply
from inferbus_client.mqtt.message import Incoming

log = logging.getLogger("inferbus.client")


@dataclass(slots=True)
class Waiter:
    """Who waits for a request's replies.

    Attributes:
        call: the request.
        deliver: takes its replies.
        sent: whether it may have been published; said before it is.
        open: from a send to the terminal reply, so that a repeat is a stray.
        run: the highest that was heard; what is of a lower one is a stray, too.
    """

    call: Call
    deliver: Deliver
    sent: bool = False
    open: bool = True
    run: int = 0

    def may_be_published(self) -> None:
        """It is about to be. After an end it is another attempt, which nobody has begun anew yet."""
        if not self.open:
            self.run = 0
        self.sent = self.open = True

    def takes(self, reply: AnyReply) -> bool:
        """Whether it waits for this reply, which may be its last."""
        if not self.open or reply.run < self.run:
            return False
        self.run, self.open = reply.run, not reply.terminal
        return True


class Waiters:
    """Those of one connection, by request and by reply topic. From any thread.

    Args:
        on_stray: called with every reply that nobody waits for (late, or a repeat), in the network thread.

    Attributes:
        by_topic: the requests that wait on each reply topic: one of a session, any number that are in none.
        repeats_are_safe: whether the worker is known to drop a repeat of a request id.
    """

    def __init__(self, on_stray: Callable[[AnyReply], None] | None) -> None:
        self._on_stray = on_stray
        # Re-entrant, since the garbage collector may close an abandoned stream here, while its thread is in here too.
        self._lock = threading.RLock()
        self._by_request: dict[str, Waiter] = {}
        self.by_topic: dict[str, dict[str, None]] = {}
        self.repeats_are_safe = False

    @contextmanager
    def waiting(self, call: Call, deliver: Deliver) -> Iterator[Waiter]:
        """While inside, replies to `call` go to `deliver`.

        Raises:
            InvalidRequestError: the request id is in use.
        """
        waiter = Waiter(call, deliver)
        try:
            with self._lock:
                if self._by_request.setdefault(call.request_id, waiter) is not waiter:
                    raise InvalidRequestError(Failure("invalid_request", "requestId: it is in flight already."))
                self.by_topic.setdefault(call.reply_topic, {})[call.request_id] = None
            yield waiter
        finally:
            with self._lock:
                if self._by_request.get(call.request_id) is waiter:
                    del self._by_request[call.request_id]
                    here = self.by_topic.get(call.reply_topic, {})
                    here.pop(call.request_id, None)
                    if not here:
                        self.by_topic.pop(call.reply_topic, None)

    def of(self, request_id: str) -> Waiter | None:
        return self._by_request.get(request_id)

    def all(self) -> list[Waiter]:
        with self._lock:
            return list(self._by_request.values())

    def on(self, topic: str) -> list[Waiter]:
        """Those who wait on one reply topic."""
        return [waiter for waiter in self.all() if waiter.call.reply_topic == topic]

    # --- in the network thread ---

    def tell(self, request_id: str, event: Event) -> None:
        if (waiter := self._by_request.get(request_id)) is not None:
            waiter.deliver(event)

    def received(self, message: Incoming) -> None:
        """Hand on a reply. What is retained is old, and of what was cut nobody knows what it was."""
        if message.retain or message.cut:
            return
        try:
            reply = decode_reply(message.payload)
        except InvalidReplyError:
            self._received_text(message)
            return
        self.repeats_are_safe = True
        waiter = self._by_request.get(reply.request_id)
        if waiter is not None and waiter.takes(reply):
            waiter.deliver(reply)
        elif self._on_stray is not None:
            self._on_stray(reply)

    def _received_text(self, message: Incoming) -> None:
        """A reply in text names its request in a user property, at best; else it is for whoever alone waits there.

        Once the worker has spoken JSON, text that names no request is somebody else's noise.
        """
        request_id = dict(message.user_properties).get("requestId")
        if request_id is None and not self.repeats_are_safe:
            with self._lock:
                here = list(self.by_topic.get(message.topic, ()))
            request_id = here[0] if len(here) == 1 else None
        waiter = self._by_request.get(request_id) if request_id is not None else None
        if waiter is None or not waiter.open:
            log.debug("a reply in text that nobody waits for, on %s", message.topic)
            return
        waiter.open = False
        waiter.deliver(TextReply(message.payload.decode(errors="replace")))
