"""What is simulated: the fleet, who asks, and what each call costs the store."""

from __future__ import annotations

from typing import Final, NamedTuple

#: What a worker sends in one round trip, at most.
BATCH: Final = 64


class Costs(NamedTuple):
    """Seconds of the store's processor. How they relate is an estimate; their sum for one request is measured.

    Attributes:
        call: for a round trip, whatever is in it.
        admit: for a request that asks to come in.
        confirm: for one that is now anybody's.
        take: for one that gets a slot, its history included.
        commit: for one that has ended, its history included.
        settle: for one whose reply has left.
        renew: for one that is held, each time its lease is renewed.
        beat: for a worker's sign of life, twice a second.
        reap: for its look at others' leases, once a second.
    """

    call: float = 10e-6
    admit: float = 35e-6
    confirm: float = 4e-6
    take: float = 30e-6
    commit: float = 40e-6
    settle: float = 8e-6
    renew: float = 2e-6
    beat: float = 20e-6
    reap: float = 10e-6

    @property
    def of_a_request(self) -> float:
        """From its admission to its end, where every call carries but this one request."""
        return 5 * self.call + self.admit + self.confirm + self.take + self.commit + self.settle

    def as_measured(self, of_a_request: float) -> Costs:
        """The same costs, in proportion, so that they sum to what one request was measured to cost, in seconds."""
        factor = of_a_request / self.of_a_request
        return Costs(*(cost * factor for cost in self))


class Memory(NamedTuple):
    """Bytes of the store's memory, measured on Redis 7.0.15 with keys and values of the lengths that ours have.

    Attributes:
        session: its record, and its place among the sessions.
        history: one question and its answer, 100 characters each.
        recent: the window and the remembered outcome of a request, for minutes.
    """

    session: int = 360
    history: int = 580
    recent: int = 710


class Plan(NamedTuple):
    """One run. Times are in seconds.

    Attributes:
        workers: how many.
        slots: requests that each runs at once.
        answer: how long an answer takes, on average.
        is_steady: whether each takes just as long; else the times are exponential.
        sessions: how many conversations there are. Each asks, reads, thinks, and asks again.
        think: how long that takes them from an answer to the next question, on average; exponential.
        trip: there and back between a worker and the store, the network alone.
        lease: how long a worker holds a request without renewing it.
        queue_size: requests that may wait.
        requests: how many are watched.
        warm_up: how many before them are not.
    """

    workers: int
    slots: int = 16
    answer: float = 0.1
    is_steady: bool = False
    sessions: int = 1000
    think: float = 0.0
    trip: float = 0.0002
    lease: float = 10.0
    queue_size: int = 1000
    requests: int = 20_000
    warm_up: int = 2_000
    costs: Costs = Costs()
    seed: int = 1

    @property
    def capacity(self) -> float:
        """Answers a second that all slots together can give."""
        return self.workers * self.slots / self.answer
