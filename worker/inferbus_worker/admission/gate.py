"""Whether the worker takes anything now. The daemon closes and opens it; admission asks with every request."""

from __future__ import annotations

from typing import Final

from inferbus_client.contract.wire import Failure

#: Nobody knows how long a model loads, from a second to many minutes: who asks each five seconds is served soon after
#: it is there, and a client's few retries outlast a small one's load.
LOADING: Final = Failure("engine_unavailable", retry_after_ms=5000)


class Gate:
    """Closed until the model is there.

    Attributes:
        reason: why nothing is taken; None while it is. Any thread may set it.
    """

    def __init__(self) -> None:
        self.reason: Failure | None = LOADING
