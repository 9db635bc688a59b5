"""The front desk: every message from the bus goes to admission, or is a word about sessions or about cancelling."""

from __future__ import annotations

import logging
from collections.abc import Container

from inferbus_client import topics
from inferbus_client.link_options import Incoming
from inferbus_client.topics import Address, Kind
from inferbus_client.wire import Control, Failure, InvalidPayloadError, decode_control, decode_object
from inferbus_worker.addressing import Addressing
from inferbus_worker.admission import Admission
from inferbus_worker.in_flight import InFlight
from inferbus_worker.reply_stream import Answered
from inferbus_worker.request_queue import RequestQueue
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
    ) -> None:
        self._projects = projects
        self._admission = admission
        self._addressing = addressing
        self._in_flight = in_flight
        self._queue = queue

    def receive(self, message: Incoming) -> None:
        """One message from the bus. Retained ones are old news, and dropped."""
        address = topics.parse(message.topic)
        if message.retain or address is None or address.project not in self._projects:
            return
        match address.kind:
            case Kind.USER_INPUT:
                self._admission.user_input(address, message)
            case Kind.SESSION:
                self._new_session(address, message)
            case Kind.CANCEL:
                self._cancel(address, message)

    def _new_session(self, address: Address, message: Incoming) -> None:
        """Answer with a fresh session id. The payload may be anything; only a JSON object says more."""
        key = SessionKey(address.project, topics.new_session_id())
        try:
            control = _control(message)
        except InvalidPayloadError:
            control = Control()
        self._addressing.open_for_session_request(message, control, key).end(Answered(key.session))

    def _cancel(self, address: Address, message: Incoming) -> None:
        """End the session's request, queued or running. One that has ended, or has another id, stays as it is."""
        job = self._in_flight.of(SessionKey(address.project, address.session or ""))
        try:
            wanted = _control(message).request_id
        except InvalidPayloadError as refusal:
            log.warning("ignored a cancel: %s", refusal.failure.message)
            return
        if job is None or (wanted is not None and wanted != job.replies.address.request_id):
            return
        self._queue.remove(job)
        job.end(Failure("cancelled"))


def _control(message: Incoming) -> Control:
    if len(message.payload) > _MAX_CONTROL_BYTES:
        raise InvalidPayloadError(Failure("message_too_large"))
    return decode_control(decode_object(message.payload))
