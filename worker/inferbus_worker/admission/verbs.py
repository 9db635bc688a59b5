"""What a message asks for: a request or a reset, a fresh session id, a cancel."""

from __future__ import annotations

import logging

from inferbus_client.contract import topics
from inferbus_client.contract.topics import Kind
from inferbus_client.contract.wire import Control, Failure, InvalidPayloadError, decode_control, decode_object
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.admission.admission import Admission
from inferbus_worker.admission.arrival import Arrival
from inferbus_worker.flow.endings import Endings
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.address import Receipt
from inferbus_worker.seldom import Seldom
from inferbus_worker.state.keys import SessionKey

log = logging.getLogger("inferbus.verbs")

MAX_CONTROL_BYTES = 4096


class Verbs:
    """Does what a message asks for.

    `handle` is for the thread that admission runs in, `refuse` for the network thread as well.

    Args:
        admission: decides on requests.
        addressing: opens reply streams.
        in_flight: what a cancel may mean.
        queue: where it may wait.
        endings: writes the end of what it cancelled.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        addressing: Addressing,
        in_flight: InFlight,
        queue: RequestQueue,
        endings: Endings,
    ) -> None:
        self._admission = admission
        self._addressing = addressing
        self._in_flight = in_flight
        self._queue = queue
        self._endings = endings
        self._seldom = Seldom(log)

    def handle(self, arrival: Arrival) -> bool:
        """Do it; whether a reply to this message will follow."""
        match arrival.address.kind:
            case Kind.USER_INPUT if arrival.is_sound:
                return self._admission.user_input(arrival)
            case Kind.USER_INPUT:
                self._admission.refuse(arrival, Failure("engine_error"))
                return True
            case Kind.SESSION:
                answer_with_new_session(arrival, self._addressing)
                return True
            case Kind.CANCEL:
                self._cancel(arrival)
                return False

    def refuse(self, arrival: Arrival, failure: Failure) -> bool:
        """Do nothing of it, and say why where there is somebody to say it to; whether there is."""
        if arrival.address.kind is Kind.CANCEL:
            self._seldom.warning("dropped a cancel: %s", failure.message)
            return False
        self._admission.refuse(arrival, failure)
        return True

    def _cancel(self, arrival: Arrival) -> None:
        """End the session's requests, queued or running. One that has ended, or has another id, stays as it is.

        A cancel that comes again was meant for a request before it. That may have come again as well, on the same
        connection; what was taken in before is a later one, for which it was not meant.
        """
        address = arrival.address
        try:
            wanted = control_of(arrival.message).request_id
        except InvalidPayloadError as refusal:
            self._seldom.warning("ignored a cancel: %s", refusal.failure.message)
            return
        for job in self._in_flight.of(SessionKey(address.project, address.session or "", address.user)):
            if wanted is not None and wanted != job.replies.address.request_id:
                continue
            if arrival.again and not _on_one_connection(arrival, job):
                continue
            # Here, and not in the thread that ran it: what comes next in this session finds it free.
            if job.mark(Failure("cancelled"), finishes=True):
                self._queue.remove(job)
                self._endings.write_finished(job)


def answer_with_new_session(arrival: Arrival, addressing: Addressing) -> None:
    """Answer with a fresh session id. The payload may be anything; only a JSON object says more."""
    key = SessionKey(arrival.address.project, topics.new_session_id(), arrival.address.user)
    try:
        control = control_of(arrival.message)
    except InvalidPayloadError:
        control = Control()
    addressing.open(arrival, control, key).end(Answered(key.session))


def _on_one_connection(arrival: Arrival, job: Job) -> bool:
    """Whether both came on the same connection; what has no receipt does not come on another."""
    receipt, other = arrival.receipt, job.replies.address.receipt
    return receipt is not None and isinstance(other, Receipt) and receipt.connection == other.connection


def control_of(message: Incoming) -> Control:
    """What a message on a topic for control says.

    Raises:
        InvalidPayloadError: it says nothing that can be read.
    """
    if message.cut or len(message.payload) > MAX_CONTROL_BYTES:
        raise InvalidPayloadError(Failure("message_too_large"))
    return decode_control(decode_object(message.payload))
