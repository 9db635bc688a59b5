"""Where the replies of one request go, and what the broker waits for meanwhile."""

from __future__ import annotations

from typing import NamedTuple

from inferbus_worker.tracing import RequestTrace


class Receipt(NamedTuple):
    """What it takes to acknowledge a message, without the message.

    Attributes:
        ack_id: the packet identifier.
        key: names the message across the runs of a worker, where it has been delivered before; else None.
        mark: names it in this run.
        connection: on which of our connections it came.
    """

    ack_id: int
    key: str | None
    mark: int = 0
    connection: int = 0


class Owed(NamedTuple):
    """Stands in the place of a receipt where the store remembers a terminal reply until it has left.

    Attributes:
        job: whose.
        token: by which this worker holds it.
    """

    job: str
    token: str


class ReplyAddress(NamedTuple):
    """Where a request's replies go, and how they are written.

    Attributes:
        receipt: of the request, where the broker waits for it, or the store.
        trace: where the request is followed; None for nearly all.
        run: how often workers of a group have begun the request anew.
        worker: who has it, where its requester is to be told.
        first_seq: the number of the first reply: 1 where another worker has said `accepted`, in the same run.
    """

    topic: str
    request_id: str
    session_id: str
    json: bool = False
    correlation_data: bytes | None = None
    receipt: Receipt | Owed | None = None
    trace: RequestTrace | None = None
    run: int = 0
    worker: str | None = None
    first_seq: int = 0
