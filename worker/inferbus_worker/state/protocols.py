"""What workers may share: conversations and the claims on them, the windows of rate limits, the outcomes of requests.

Memory stands behind these words here (`state.memory`). A store that several workers share may take its place: nothing
below demands that a holder be in this process, and every change is made as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from inferbus_client.contract.wire import Failure
from inferbus_worker.outcome import Answered
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.state.conversation import Change, Conversation
from inferbus_worker.state.keys import RetryKey, SessionKey

#: How full what is bounded is, by the names that the stats give: what is there now, and the bound.
Levels = Mapping[str, tuple[int, int]]


class Claim(Protocol):
    """The right to a session, from admission to the terminal reply. Any thread may use it."""

    @property
    def fence(self) -> int:
        """Grows with every claim on the session: who writes with an older one comes too late."""
        ...

    @property
    def conversation(self) -> Conversation:
        """As it was when it was claimed."""
        ...

    def commit(self, change: Change) -> bool:
        """Write a change. False: too late, somebody else has the session by now, and nothing was written."""
        ...

    def release(self) -> None:
        """Let others have the session. Any number of times."""
        ...


class SessionStore(Protocol):
    """Where conversations live."""

    def claim(self, key: SessionKey) -> Claim | None:
        """The session, made if it is new; None, at once, while somebody else holds it."""
        ...

    def levels(self) -> Levels: ...

    def __len__(self) -> int:
        """How many there are, claimed or kept."""
        ...


class Window(NamedTuple):
    """One of the sliding windows that a request counts in.

    Attributes:
        table: the limit's name; tables have nothing in common.
        key: whose window it is.
        rate: what it lets through.
    """

    table: str
    key: Hashable
    rate: RateLimit


class Windows(Protocol):
    """Exact sliding windows of requests."""

    def admit(self, windows: Sequence[Window]) -> float | None:
        """Count a request in every one of them, or in none.

        Returns:
            None: counted. Otherwise the seconds until the last of those that are full has room.
        """
        ...

    def levels(self) -> Levels: ...


class Charge(Protocol):
    """Tokens that a request has been charged with."""

    def settle(self, tokens: int) -> None:
        """Put what it really took in the place of the charge."""
        ...


class Budgets(Protocol):
    """Exact sliding windows of tokens, one for each session."""

    def charge(self, key: SessionKey, tokens: int) -> Charge | float:
        """Charge a session, or say in how many seconds it may come again. Never more than the whole budget."""
        ...

    def levels(self) -> Levels: ...


class Finished(NamedTuple):
    """The outcome of a request, and the session that it ran in (made up where the request named none)."""

    session: str
    outcome: Answered | Failure


class Idempotency(Protocol):
    """What became of the requests of the last minutes."""

    def known(self, key: RetryKey) -> Finished | Literal["in flight"] | None:
        """What became of this request; None: it is new."""
        ...

    def started(self, key: RetryKey) -> bool:
        """Note that it runs; False where it runs already."""
        ...

    def finished(self, key: RetryKey, outcome: Finished) -> None:
        """It runs no more. A failure that its reply asks to retry is not remembered."""
        ...

    def levels(self) -> Levels: ...


class Stores(NamedTuple):
    """All that workers may share. `budgets` is None where no token budget is set."""

    sessions: SessionStore
    windows: Windows
    budgets: Budgets | None
    recent: Idempotency

    def levels(self) -> Levels:
        """Of conversations and outcomes. Which windows are on, the rate limits know; budgets tell theirs."""
        return {**self.sessions.levels(), **self.recent.levels()}
