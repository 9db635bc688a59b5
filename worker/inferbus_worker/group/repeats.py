"""A request that has been answered comes again: from the broker, or from a requester who has missed the answer."""

from __future__ import annotations

from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.group.bidding import Wish
from inferbus_worker.group.writing import Ended


def answer_again(wish: Wish, ended: Ended, addressing: Addressing) -> None:
    """Say how it ended.

    The broker delivers a message again where a worker was lost before it could acknowledge it: its requester may have
    heard the answer, and hears the very same. Who asks again himself begins to count anew, in the run that he knows.
    """
    key = wish.key._replace(session=ended.finished.session)
    is_same = wish.arrival.message.dup
    replies = addressing.open(
        wish.arrival,
        wish.request,
        key,
        request_id=ended.request_id if is_same else None,
        run=ended.run,
        first_seq=ended.seq if is_same else 0,
    )
    replies.end(ended.finished.outcome)
