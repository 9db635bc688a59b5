"""The claim of a request that brings its whole conversation along: none, on nothing."""

from __future__ import annotations

from typing import Final

from inferbus_worker.state.conversation import Change, Conversation
from inferbus_worker.state.protocols import Claim


class _NoClaim:
    """See `Claim`. It holds nobody up, and any number of requests have it at once."""

    fence: Final = 0
    conversation: Final = Conversation()

    def commit(self, change: Change) -> bool:  # noqa: ARG002
        """Nothing is kept, so nothing comes too late."""
        return True

    def release(self) -> None:
        """There is nothing to release."""


NO_CLAIM: Final[Claim] = _NoClaim()
