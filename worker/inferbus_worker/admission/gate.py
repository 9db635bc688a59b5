"""Whether the worker takes anything now. The daemon closes and opens it; admission asks with every request."""

from __future__ import annotations

from inferbus_client.contract.wire import Failure
from inferbus_worker.engines.registry import LOADING


class Gate:
    """Closed until the model is there.

    Attributes:
        reason: why nothing is taken; None while it is. Any thread may set it.
    """

    def __init__(self) -> None:
        self.reason: Failure | None = LOADING
