"""Keeps what this worker has taken, looks after what others have lost, and says that it lives: the thread "leases".

A job belongs to its worker for one lease, which this thread renews four times in that. It takes up what others have
let run out only when it has itself reached the store for one whole lease without a break, and without a jump of its
clock: after a stall of the store those whose leases ran out meanwhile renew them first, and nobody's live work is
taken. A worker that has lost its broker gives its jobs back, since nobody would hear its replies.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_client.units import counted
from inferbus_worker.engines.registry import Registry
from inferbus_worker.engines.slot import Model
from inferbus_worker.engines.slots import SlotTable
from inferbus_worker.flow.job import PASSED_IN_QUEUE
from inferbus_worker.group.endings import GroupEndings
from inferbus_worker.group.figures import Figures
from inferbus_worker.group.histories import Histories
from inferbus_worker.group.holdings import Holdings
from inferbus_worker.group.reopening import Reopening
from inferbus_worker.group.writing import UnreadableError
from inferbus_worker.replies.address import Owed
from inferbus_worker.replies.sender import Sender
from inferbus_worker.seldom import Seldom
from inferbus_worker.state.errors import StoreAwayError, StoreError
from inferbus_worker.state.redis.courier import Courier
from inferbus_worker.state.redis.group import RedisGroup, Taken

log = logging.getLogger("inferbus.leases")

#: Seconds.
_TICK: Final = 0.1
_BEAT_EVERY: Final = 0.5
_LOOK_EVERY: Final = 0.25
_REAP_EVERY: Final = 1.0
#: A model that is starting may yet have a slot; so long until it is looked at again.
_LOOK_AGAIN: Final = 1.0
#: Without a broker for so long, and its jobs are given back: it may be back sooner than another could begin.
_WITHOUT_BROKER: Final = 2.0
#: Of a model's jobs, so many go to another one at a time.
_MOST_MOVED: Final = 64
#: Parts of a lease in which it is renewed once.
_RENEWALS: Final = 4


class _Every:
    """Whether it is time again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def is_due(self, now: float) -> bool:
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True

    def at_once(self) -> None:
        self._next = 0.0


class Keeper:
    """The thread "leases". `start` and `stop` are for its owner.

    Args:
        lease: seconds for which a job belongs to a worker that is not heard of.
        courier: reaches the store.
        group: knows its words.
        figures: hears what the beats answer.
        holdings: what is to be renewed.
        histories: where conversations are.
        endings: ends what waits in vain.
        reopening: reads what others have left behind.
        registry: the models.
        slots: what this worker serves.
        sender: publishes what others owe.
        has_broker: whether replies can leave now.
        slot_timeout: seconds that a job may wait for a slot; None: any time.
        clock: a monotonic one; the slots' too.
    """

    def __init__(
        self,
        *,
        lease: float,
        courier: Courier,
        group: RedisGroup,
        figures: Figures,
        holdings: Holdings,
        histories: Histories,
        endings: GroupEndings,
        reopening: Reopening,
        registry: Registry,
        slots: SlotTable,
        sender: Sender,
        has_broker: Callable[[], bool],
        slot_timeout: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease
        self._courier = courier
        self._group = group
        self._figures = figures
        self._holdings = holdings
        self._histories = histories
        self._endings = endings
        self._reopening = reopening
        self._registry = registry
        self._slots = slots
        self._sender = sender
        self._has_broker = has_broker
        self._slot_timeout = slot_timeout
        self._clock = clock
        self._renew, self._beat = _Every(lease / _RENEWALS), _Every(_BEAT_EVERY)
        self._look, self._reap = _Every(_LOOK_EVERY), _Every(_REAP_EVERY)
        self._inherit, self._inherits_until = _Every(_REAP_EVERY), 0.0
        self._here_since: float | None = None
        self._without_broker_since: float | None = None
        self._seldom = Seldom(log)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="leases", daemon=True)

    def start(self) -> None:
        # By then what an earlier life of ours held has run out by itself.
        self._inherits_until = time.monotonic() + 2 * self._lease
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Renew nothing more."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def beat(self) -> None:
        """Say that this worker lives, and hear who else does.

        Raises:
            StoreAwayError: the store does not answer.
        """
        served = {key: self._slots.of(key) for key, model in self._registry.models.items() if model.will_serve}
        self._figures.heard(self._courier.ask(self._group.beat(b"{}", served, self._figures.latest.mark)))

    def give_back(self, held: Sequence[Owed]) -> None:
        """Let others run what this worker has not ended, and say what it has ended and could not say."""
        if held:
            self._courier.post(self._group.give_back(held), keeps=True)
            for owed in held:
                self._holdings.lose(owed.job)

    def _work(self) -> None:
        while not self._stopped.wait(_TICK):
            try:
                self._tend(time.monotonic())
            except StoreAwayError:
                continue
            except StoreError as error:
                self._seldom.warning("the leases could not be looked after: %s", error)
            except Exception:
                log.exception("the leases could not be looked after")

    def _tend(self, now: float) -> None:
        here_since = self._courier.here_since
        if here_since is None:
            return
        here_since = max(here_since, self._figures.steady_since)
        if here_since != self._here_since:  # it was away, or its clock has jumped: first of all, what is ours
            self._here_since = here_since
            self._renew.at_once()
        if self._renew.is_due(now):
            self._renew_leases()
        if self._beat.is_due(now):
            self.beat()
        if now < self._inherits_until and self._inherit.is_due(now):
            self._courier.ask(self._group.inherit())
        if not self._keeps_jobs(now):
            return
        if self._look.is_due(now):
            for taken in self._courier.ask(self._group.overdue(self._figures.new_token())):
                self._judge(taken)
            self._leave_models()
        # The beat above may just have found that the clock has jumped.
        if now - max(here_since, self._figures.steady_since) >= self._lease and self._reap.is_due(now):
            self._reap_leases()

    def _renew_leases(self) -> None:
        at, held = self._clock(), self._holdings.all()
        renewed = self._courier.ask(self._group.renew(held, self._figures.not_after()))
        self._holdings.renewed({owed.job for owed in held}.difference(renewed.lost, renewed.unknown), at)
        # What the store has forgotten is finished here, if nobody else can have had it.
        lost = [*renewed.lost, *(name for name in renewed.unknown if not self._holdings.keep(name))]
        for name in lost:
            if self._holdings.lose(name):
                log.warning("a job is not ours any more: it was not renewed in time")
        for name in renewed.cancelled:
            job = self._holdings.job(name)
            if job is not None:
                job.mark(Failure("cancelled"))

    def _keeps_jobs(self, now: float) -> bool:
        """Whether somebody would hear our replies; else what this worker has goes back."""
        if self._has_broker():
            self._without_broker_since = None
            return True
        self._without_broker_since = self._without_broker_since or now
        if now - self._without_broker_since >= _WITHOUT_BROKER and len(self._holdings):
            log.warning("without a broker: given back to the group: %s", counted(len(self._holdings), "job"))
            self.give_back(self._holdings.all())
        return False

    def _reap_leases(self) -> None:
        reaped = self._courier.ask(self._group.reap(self._figures.new_token(), not_after=self._figures.not_after()))
        if reaped.requeued or reaped.dropped:
            lost = "of lost workers: %s to run again; %s dropped that nobody had confirmed"
            log.warning(lost, counted(reaped.requeued, "job"), counted(reaped.dropped, "job"))
        self._histories.forget(reaped.evicted)
        for taken in reaped.mine:
            if taken.owed is not None:
                self._say(taken)
            else:
                log.error("a request is given up: its turn ended %s", counted(taken.run, "worker"))
                self._endings.end(taken, Failure("engine_error"))

    def _say(self, taken: Taken) -> None:
        """Publish a terminal reply that its worker has written and could not send, or not clear."""
        try:
            reply = self._reopening.owed(taken)
        except UnreadableError:
            log.exception("a reply that another worker owed could not be read")
            self._endings.discard(taken)
            return
        self._holdings.add(taken, None)
        self._sender.post(reply)

    def _judge(self, taken: Taken) -> None:
        """A job that waits, and whose time to be looked at has come; see `flow.overdue`."""
        if taken.is_cancelled:
            self._endings.end(taken, Failure("cancelled"))
            return
        if taken.deadline is not None and taken.deadline <= 0:
            self._endings.end(taken, PASSED_IN_QUEUE)
            return
        model = self._registry.models.get(taken.model)
        wait = _LOOK_AGAIN if model is None else self._slot_in(taken, model)
        if model is None or wait is None or wait > 0:
            self._put_back(taken, taken.model, wait)
        elif self._figures.serves(taken.model):
            self._endings.end(taken, self._registry.without_slot(model))
        else:
            self._move(taken, model)

    def _slot_in(self, taken: Taken, model: Model) -> float | None:
        """Seconds for which a job may wait on for a slot; a start of its model does not count. None: any time."""
        if model.is_starting and not self._figures.serves(model.key):
            return _LOOK_AGAIN
        if self._slot_timeout is None:
            return None
        return max(max(-taken.waited, model.served_since - self._clock()) + self._slot_timeout, 0.0)

    def _leave_models(self) -> None:
        """Nobody in the group will serve a model: what waits for it goes to another one, or ends at once."""
        for model in self._registry.models.values():
            if model.will_serve or self._figures.expects(model.key) or not self._figures.queued(model.key):
                continue
            if any(slot.state == "dead" for slot in model.slots) and self._registry.serving(model) is None:
                continue  # this worker ends: what waits, its next life serves, or another worker
            wanted = [(model.key, _MOST_MOVED)]
            for taken in self._courier.ask(self._group.take(self._figures.new_token(), wanted)).jobs:
                self._move(taken, model)

    def _move(self, taken: Taken, model: Model) -> None:
        instead = self._registry.serving(model)
        if instead is None:
            self._endings.end(taken, self._registry.unavailable(model))
        else:
            self._put_back(taken, instead.key, self._slot_in(taken, instead))

    def _put_back(self, taken: Taken, model: str, look_in: float | None) -> None:
        if taken.deadline is not None:
            look_in = taken.deadline if look_in is None else min(look_in, taken.deadline)
        self._courier.post(self._group.put_back(taken.job, taken.token, model, look_in))
