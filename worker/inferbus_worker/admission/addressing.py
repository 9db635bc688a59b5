"""Where replies may go: the session's own topic, or one below it, or one that the operator has allowed."""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Sequence

from inferbus_client.contract import topics
from inferbus_client.contract.topics import Kind
from inferbus_client.contract.trace import read_trace
from inferbus_client.contract.wire import Envelope
from inferbus_client.tracing.spans import Tracer
from inferbus_worker.admission.arrival import Arrival
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.sender import Sender
from inferbus_worker.replies.stream import ReplyStream
from inferbus_worker.seldom import Seldom
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.tracing import RequestTrace

log = logging.getLogger("inferbus.addressing")


class Addressing:
    """Opens the reply stream of a request. A requester never makes the worker publish where it could not itself.

    Args:
        sender: the sender.
        allowlist: topic filters where replies may go besides the session's own topic.
        tracer: makes spans of requests; None: nobody does.
    """

    def __init__(self, sender: Sender, allowlist: Sequence[str], tracer: Tracer | None = None) -> None:
        self._sender = sender
        self._tracer = tracer
        self._allowlist = tuple(allowlist)
        self._seldom = Seldom(log)
        # For requests that name no id of their own: unique, which is all that such an id is for.
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count()

    @property
    def is_congested(self) -> bool:
        """Whether replies could not leave: the broker takes too little."""
        return self._sender.congested

    def open(
        self,
        arrival: Arrival,
        envelope: Envelope,
        key: SessionKey,
        *,
        request_id: str | None = None,
        run: int = 0,
        first_seq: int = 0,
    ) -> ReplyStream:
        """The reply stream of a request in a session, or of one for a new session id, which `key` names.

        Args:
            arrival: where it came from.
            envelope: what it says of its replies.
            key: its session.
            request_id: what it goes by where it names no id, and has been answered before.
            run: see `ReplyAddress`.
            first_seq: see `ReplyAddress`.
        """
        message = arrival.message
        if arrival.address.kind is Kind.SESSION:
            home = topics.session_response(key.scope)
        else:
            home = topics.assistant_response(key.scope, key.session)
        address = ReplyAddress(
            topic=self._topic(message.response_topic or envelope.reply_topic, home),
            request_id=envelope.request_id or request_id or f"{self._run}-{next(self._numbers)}",
            session_id=key.session,
            json=envelope.wants_json,
            correlation_data=message.correlation_data,
            receipt=arrival.receipt,
            trace=self._trace(arrival) if message.user_properties or self._tracer is not None else None,
            run=run,
            first_seq=first_seq,
        )
        return self._sender.open(address)

    def open_beside(self, replies: ReplyStream, worker: str) -> ReplyStream:
        """A stream for what is said of a request before its own: `accepted`, by this worker."""
        return self._sender.open(replies.address._replace(receipt=None, trace=None, worker=worker))

    def _trace(self, arrival: Arrival) -> RequestTrace | None:
        incoming = read_trace(arrival.message.user_properties)
        if incoming is None and self._tracer is None:
            return None
        return RequestTrace(self._tracer, incoming, arrival.address.kind.value, arrival.address.project)

    def _topic(self, wanted: str | None, home: str) -> str:
        if not wanted:
            return home
        if topics.is_reply_topic(wanted, home, self._allowlist):
            return wanted
        self._seldom.warning("ignored a reply topic that its requester may not name: %r", wanted[:128])
        return home
