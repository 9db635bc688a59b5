"""What the rooms of a member of a group have more, moved on by hand as all of them are; and a look into its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferbus_worker.flow.overdue import Overdue
from inferbus_worker.group.membership import Membership
from inferbus_worker.replies.address import Owed
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.redis.bids import short
from inferbus_worker.state.redis.names import session_name
from support.in_place import CourierInPlace


class Shared:
    """One member's part. Its threads are the test's: the taker's in `fetch`, the keeper's in `beat` and `look`.

    Args:
        membership: what it has more than other workers.
        courier: reaches the store.
        overdue: what the main thread does.

    Attributes:
        takes_at_once: what can run here is taken as soon as it is admitted, as it really is; else by `fetch` alone.
    """

    def __init__(self, membership: Membership, courier: CourierInPlace, overdue: Overdue) -> None:
        self.membership = membership
        self.courier = courier
        self._overdue = overdue
        self.takes_at_once = False
        membership.taker._may_take = lambda: self.takes_at_once
        self.beat()

    def beat(self) -> None:
        """Say that it lives, as it does twice a second."""
        if self.courier.is_here and not self.courier.loses_answers:
            self.membership.keeper.beat()

    def fetch(self) -> bool:
        """Take what is next: one job of every model that has a slot free here. Whether there was one."""
        self.beat()
        taker, courier = self.membership.taker, self.courier
        before, self.takes_at_once = self.takes_at_once, True
        wanted = [(model, 1) for model, _ in taker._wanted()]
        self.takes_at_once = before
        since = courier._clock()
        took = courier.ask(self.membership.group.take(self.membership.figures.new_token(), wanted))
        taker.receive(took.jobs, since)
        return bool(took.jobs)

    def look(self) -> None:
        """Look at what waits in vain, here and in the store; renew, and take up what others have lost."""
        self.beat()
        self._overdue.look()
        keeper = self.membership.keeper
        for each in (keeper._look, keeper._renew, keeper._reap):
            each.at_once()
        keeper._tend(self.courier._clock())

    def published(self, messages: Sequence[Outgoing]) -> None:
        """The broker has them."""
        for message in messages:
            if message.terminal and message.address is not None and isinstance(message.address.receipt, Owed):
                self.membership.endings.left(message.address.receipt)

    def queued(self, model: str | None = None) -> int:
        """How many wait in the store."""
        lengths = self._hash("lengths")
        return sum(count for lane, count in lengths.items() if model is None or lane.partition("/")[2] == model)

    def forms(self, model: str) -> int:
        return self._hash("forms").get(model, 0)

    def charges(self, session: str) -> list[int]:
        """What a session of the project `general` is charged with."""
        name = short(session_name(SessionKey("general", session)))
        found: Any = self._client.lrange(f"{self.courier.prefix}budget:{name}", 0, -1)
        return [int(entry.split(b":")[1]) for entry in found]

    @property
    def history_bytes(self) -> int:
        return self._hash("kept").get("bytes", 0)

    def __len__(self) -> int:
        """The sessions that are kept."""
        kept: Any = self._client.zcard(f"{self.courier.prefix}sessions")
        return int(kept)

    @property
    def claimed(self) -> int:
        sessions = self.courier.names("session:")
        return sum(bool(self._client.hexists(self.courier.prefix + name, "claim")) for name in sessions)

    @property
    def left_behind(self) -> dict[str, int]:
        """See `Rooms.left_behind`. A job whose end is written holds nothing any more, even while its reply is owed."""
        jobs = [self._client.hget(self.courier.prefix + name, "state") for name in self.courier.names("job:")]
        repeats = [self._client.get(self.courier.prefix + name) for name in self.courier.names("retry:")]
        return {
            "claims": self.claimed,
            "in flight": sum(state != b"owed" for state in jobs),
            "queued": self.queued(),
            "retries": sum(isinstance(said, bytes) and said.startswith(b"j:") for said in repeats),
        }

    @property
    def _client(self) -> Any:
        return self.courier.store.client

    def _hash(self, name: str) -> dict[str, int]:
        found = self._client.hgetall(self.courier.prefix + name)
        return {field.decode(): int(value) for field, value in found.items()}
