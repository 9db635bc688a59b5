"""The front desk: every message from the bus goes to admission, or is a word about sessions or about cancelling."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container
from typing import NamedTuple

from inferbus_client.contract import topics
from inferbus_client.contract.topics import Address, Kind
from inferbus_client.contract.wire import Control, Failure, InvalidPayloadError, decode_control, decode_object
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.admission.admission import Admission
from inferbus_worker.bus.acknowledgements import Acknowledgements
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.outcome import Answered
from inferbus_worker.seldom import Seldom
from inferbus_worker.state.memory.sessions import SessionKey

log = logging.getLogger("inferbus.reception")

_MAX_CONTROL_BYTES = 4096
# Of cancels without an acknowledgement.
_MAX_HELD = 1024


class _Held(NamedTuple):
    """A message that waits for the model, and since when on the worker's monotonic clock."""

    message: Incoming
    since: float


class Reception:
    """Routes messages by topic. Runs in the network thread: nothing here waits.

    Args:
        projects: that are served.
        admission: decides on requests.
        addressing: opens reply streams.
        in_flight: what a cancel may mean.
        queue: where it may wait.
        acknowledgements: of requests at QoS 1.
        users: whether the identity is in the topic.
        max_held: QoS 1 messages that `hold` keeps; what comes beyond hears at once that there is no model yet.
        max_held_bytes: of each; a larger one is refused in any case, and need not wait for that.
        clock: a monotonic one.
    """

    def __init__(
        self,
        *,
        projects: Container[str],
        admission: Admission,
        addressing: Addressing,
        in_flight: InFlight,
        queue: RequestQueue,
        acknowledgements: Acknowledgements,
        users: bool = False,
        max_held: int = _MAX_HELD,
        max_held_bytes: int = 65536,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._projects = projects
        self._admission = admission
        self._addressing = addressing
        self._in_flight = in_flight
        self._queue = queue
        self._acknowledgements = acknowledgements
        self._users = users
        self._max_held = max_held
        self._max_held_bytes = max_held_bytes
        self._clock = clock
        self._seldom = Seldom(log)
        # In their order, by packet identifier; what has none is numbered downwards from 0.
        self._held: dict[int, _Held] | None = None
        self._numbered = 0

    def receive(self, message: Incoming) -> None:
        """One message from the bus. Retained ones are old news, and dropped."""
        if self._held is None or not self._holds(message, self._held):
            self._take_in(message, since=None)

    def _take_in(self, message: Incoming, since: float | None) -> None:
        if self._acknowledgements.needs_nothing(message):
            return
        again = self._acknowledgements.was_handled(message)
        sound = self._acknowledgements.begin(message)
        try:
            is_answered = self._answers(message, sound=sound, again=again, since=since)
        except Exception:
            log.exception("a message could not be handled")
            is_answered = False
        if not is_answered:
            self._acknowledgements.end(self._acknowledgements.receipt_of(message), arrived=False)

    def hold(self) -> None:
        """Keep QoS 1 messages instead of refusing them: what is acknowledged after its reply can wait for the model."""
        self._held = {}

    def release(self) -> None:
        """Take in what was held, in the order in which it came."""
        held, self._held = self._held, None
        for message, since in (held or {}).values():
            try:
                self._take_in(message, since)
            except Exception:
                log.exception("a message could not be handled")

    def came_up(self, *, remembered: bool) -> None:
        """A new connection; `remembered` says whether the broker still knows what it sent on the one before."""
        self._acknowledgements.came_up(remembered=remembered)
        if self._held is not None and not remembered:
            old = [each._replace(message=each.message._replace(qos=0, ack_id=0)) for each in self._held.values()]
            self._held = {-number: each for number, each in enumerate(old)}
            self._numbered = len(old)

    def _holds(self, message: Incoming, held: dict[int, _Held]) -> bool:
        """Keep the message, if it is to be kept. One that comes again, after a reconnect, has its place already."""
        if message.qos:
            return message.ack_id in held or self._keeps(message, message.ack_id, held, self._max_held_bytes)
        # A cancel must not overtake the request that it means.
        address = topics.parse(message.topic)
        if address is None or address.kind is not Kind.CANCEL:
            return False
        if self._numbered < _MAX_HELD and self._keeps(message, -self._numbered, held, _MAX_CONTROL_BYTES):
            self._numbered += 1
        return True

    def _keeps(self, message: Incoming, number: int, held: dict[int, _Held], largest: int) -> bool:
        if message.cut or len(message.payload) > largest or len(held) >= self._max_held + _MAX_HELD:
            return False
        held[number] = _Held(message, self._clock())
        return True

    def _answers(self, message: Incoming, *, sound: bool, again: bool, since: float | None) -> bool:
        """Handle the message; whether a reply to it will follow."""
        address = topics.parse(message.topic)
        if message.retain or address is None or not self._serves(address):
            return False
        match address.kind:
            case Kind.USER_INPUT if sound:
                return self._admission.user_input(address, message, again=again, since=since)
            case Kind.USER_INPUT:
                self._admission.set_aside(address, message)
                return True
            case Kind.SESSION:
                self._new_session(address, message)
                return True
            case Kind.CANCEL:
                self._cancel(address, message, again=again)
                return False

    def _serves(self, address: Address) -> bool:
        """Where identity is in the topic, only there: a topic without one would be a way around it."""
        if address.project not in self._projects or (address.user is not None) != self._users:
            return False
        return address.user is None or topics.is_user(address.user)

    def _new_session(self, address: Address, message: Incoming) -> None:
        """Answer with a fresh session id. The payload may be anything; only a JSON object says more."""
        key = SessionKey(address.project, topics.new_session_id(), address.user)
        try:
            control = _control(message)
        except InvalidPayloadError:
            control = Control()
        self._addressing.open_for_session_request(message, control, key).end(Answered(key.session))

    def _cancel(self, address: Address, message: Incoming, *, again: bool) -> None:
        """End the session's request, queued or running. One that has ended, or has another id, stays as it is.

        A cancel that comes again was meant for a request before it. That may have come again as well, on the same
        connection; what was taken in before is a later one, for which it was not meant.
        """
        job = self._in_flight.of(SessionKey(address.project, address.session or "", address.user))
        try:
            wanted = _control(message).request_id
        except InvalidPayloadError as refusal:
            self._seldom.warning("ignored a cancel: %s", refusal.failure.message)
            return
        if job is None or (wanted is not None and wanted != job.replies.address.request_id):
            return
        if again and not self._acknowledgements.is_of_this_connection(job.replies.address.receipt):
            return
        self._queue.remove(job)
        job.end(Failure("cancelled"))


def _control(message: Incoming) -> Control:
    if message.cut or len(message.payload) > _MAX_CONTROL_BYTES:
        raise InvalidPayloadError(Failure("message_too_large"))
    return decode_control(decode_object(message.payload))
