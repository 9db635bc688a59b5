"""One message for the broker, and what to say where it is too large for that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from inferbus_client.contract.wire import ErrorReply, Failure, decode_reply
from inferbus_worker.replies.address import ReplyAddress


class Outgoing(NamedTuple):
    """One message for the broker. `status` is the contract's `ok` or failure code, None for what is no reply."""

    topic: str
    payload: bytes
    json: bool = False
    retain: bool = False
    qos: int | None = None
    status: str | None = None
    terminal: bool = True
    retry_after_ms: int | None = None
    address: ReplyAddress | None = None

    @property
    def owed(self) -> bool:
        """Presence is retained, and has to be right; anything else that is no reply can be spared."""
        return self.retain

    @property
    def refuses(self) -> bool:
        """A message of its own is no reply to a request."""
        return False

    def outgoing(self) -> Iterable[Outgoing]:
        """A message is its own queue of one."""
        return (self,)

    def shed(self) -> tuple[int, bool]:
        """See `outbox.Source`."""
        return 0, True

    def drop(self) -> int:
        """See `outbox.Source`."""
        return 1


def instead_of(message: Outgoing) -> Outgoing | None:
    """What to say where the broker takes no packet as large as `message`: nothing for a delta, an error for the end."""
    address = message.address
    if address is None or not message.terminal:
        return None
    failure = Failure("engine_error", "The answer is larger than the broker lets through.")
    if not message.json:
        return message._replace(payload=failure.sentence.encode(), status=failure.code)
    whole = decode_reply(message.payload)
    whose = {"request_id": address.request_id, "session_id": address.session_id}
    reply = ErrorReply.of(failure, **whose, seq=whole.seq, run=whole.run)
    return message._replace(payload=reply.encode(), status=failure.code)
