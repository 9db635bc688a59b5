"""The front desk: every message from the bus goes to admission, or is a word about sessions or about cancelling."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Container

from inferbus_client import topics
from inferbus_client.link_options import Incoming
from inferbus_client.topics import Address, Kind
from inferbus_client.wire import Control, Failure, InvalidPayloadError, decode_control, decode_object
from inferbus_worker.acknowledgements import Acknowledgements
from inferbus_worker.addressing import Addressing
from inferbus_worker.admission import Admission
from inferbus_worker.in_flight import InFlight
from inferbus_worker.reply_stream import Answered
from inferbus_worker.request_queue import RequestQueue
from inferbus_worker.seldom import Seldom
from inferbus_worker.sessions import SessionKey

log = logging.getLogger("inferbus.reception")

_MAX_CONTROL_BYTES = 4096


class Reception:
    """Routes messages by topic. Runs in the network thread: nothing here waits."""

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
    ) -> None:
        self._projects = projects
        self._admission = admission
        self._addressing = addressing
        self._in_flight = in_flight
        self._queue = queue
        self._acknowledgements = acknowledgements
        self._users = users
        self._seldom = Seldom(log)
        self._held: deque[Incoming] | None = None

    def receive(self, message: Incoming) -> None:
        """One message from the bus. Retained ones are old news, and dropped."""
        if self._held is not None and message.qos:
            self._held.append(message)
            return
        if self._acknowledgements.is_under_way(message):
            return
        sound = self._acknowledgements.begin(message)
        if not self._answers(message, sound=sound):
            self._acknowledgements.end(message)

    def hold(self) -> None:
        """Keep QoS 1 messages instead of refusing them: what is acknowledged after its reply can wait for the model.

        The broker sends no more than the link's receive maximum of them.
        """
        self._held = deque()

    def release(self) -> None:
        """Take in what was held, in the order in which it came."""
        held, self._held = self._held, None
        for message in held or ():
            self.receive(message)

    def _answers(self, message: Incoming, *, sound: bool) -> bool:
        """Handle the message; whether a reply to it will follow."""
        address = topics.parse(message.topic)
        if message.retain or address is None or not self._serves(address):
            return False
        match address.kind:
            case Kind.USER_INPUT if sound:
                return self._admission.user_input(address, message)
            case Kind.USER_INPUT:
                self._admission.set_aside(address, message)
                return True
            case Kind.SESSION:
                self._new_session(address, message)
                return True
            case Kind.CANCEL:
                self._cancel(address, message)
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

    def _cancel(self, address: Address, message: Incoming) -> None:
        """End the session's request, queued or running. One that has ended, or has another id, stays as it is."""
        job = self._in_flight.of(SessionKey(address.project, address.session or "", address.user))
        try:
            wanted = _control(message).request_id
        except InvalidPayloadError as refusal:
            self._seldom.warning("ignored a cancel: %s", refusal.failure.message)
            return
        if job is None or (wanted is not None and wanted != job.replies.address.request_id):
            return
        self._queue.remove(job)
        job.end(Failure("cancelled"))


def _control(message: Incoming) -> Control:
    if len(message.payload) > _MAX_CONTROL_BYTES:
        raise InvalidPayloadError(Failure("message_too_large"))
    return decode_control(decode_object(message.payload))
