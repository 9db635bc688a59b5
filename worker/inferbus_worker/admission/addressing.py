"""Where replies may go: the session's own topic, or one below it, or one that the operator has allowed."""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Callable, Sequence

from inferbus_client.contract import topics
from inferbus_client.contract.wire import Envelope
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.replies.address import Receipt, ReplyAddress
from inferbus_worker.replies.sender import Replies
from inferbus_worker.replies.stream import ReplyStream
from inferbus_worker.seldom import Seldom
from inferbus_worker.state.memory.sessions import SessionKey

log = logging.getLogger("inferbus.addressing")


class Addressing:
    """Opens the reply stream of a request. A requester never makes the worker publish where it could not itself.

    Args:
        replies: the sender.
        allowlist: topic filters where replies may go besides the session's own topic.
        receipt_of: what the broker is to be told when a message has been answered.
    """

    def __init__(
        self,
        replies: Replies,
        allowlist: Sequence[str],
        receipt_of: Callable[[Incoming], Receipt | None] = lambda _message: None,
    ) -> None:
        self._replies = replies
        self._receipt_of = receipt_of
        self._allowlist = tuple(allowlist)
        self._seldom = Seldom(log)
        # For requests that name no id of their own: unique, which is all that such an id is for.
        self._made_up = (f"{run}-{number}" for run in [secrets.token_hex(4)] for number in itertools.count())

    def open(self, message: Incoming, envelope: Envelope, key: SessionKey) -> ReplyStream:
        """The reply stream of a request in a session."""
        return self._open(message, envelope, key.session, topics.assistant_response(key.scope, key.session))

    def open_for_session_request(self, message: Incoming, envelope: Envelope, key: SessionKey) -> ReplyStream:
        """The reply stream of a request for a new session id, which `key` names."""
        return self._open(message, envelope, key.session, topics.session_response(key.scope))

    def _open(self, message: Incoming, envelope: Envelope, session: str, home: str) -> ReplyStream:
        address = ReplyAddress(
            topic=self._topic(message.response_topic or envelope.reply_topic, home),
            request_id=envelope.request_id or next(self._made_up),
            session_id=session,
            json=envelope.wants_json,
            correlation_data=message.correlation_data,
            receipt=self._receipt_of(message),
        )
        return self._replies.open(address)

    def _topic(self, wanted: str | None, home: str) -> str:
        if not wanted:
            return home
        if topics.is_reply_topic(wanted, home, self._allowlist):
            return wanted
        self._seldom.warning("ignored a reply topic that its requester may not name: %r", wanted[:128])
        return home
