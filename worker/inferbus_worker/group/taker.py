"""Who has a slot takes: the thread that fetches jobs from the store, one for every place that is free here.

It is woken by a slot that has become free, or by the store, where a bell lies for every model: a list that holds one
token while something waits that somebody could take. Who pops the token takes, and rings again when something is left.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_client.units import counted
from inferbus_worker.engines.slots import SlotTable
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.group.endings import GroupEndings
from inferbus_worker.group.figures import Figures
from inferbus_worker.group.histories import Histories, Wanted
from inferbus_worker.group.holdings import GroupClaim, Holdings
from inferbus_worker.group.reopening import Reopening
from inferbus_worker.group.writing import UnreadableError
from inferbus_worker.state.errors import StoreAwayError, StoreError
from inferbus_worker.state.redis.bells import Bells
from inferbus_worker.state.redis.courier import Courier
from inferbus_worker.state.redis.group import Confirmed, RedisGroup, Taken, Took

log = logging.getLogger("inferbus.taker")

#: A worker that can read it may be there at the next try.
UNREAD: Final = Failure("engine_unavailable", retry_after_ms=1000)

#: Seconds after which to look without having been rung for: a token may have died with the worker that popped it.
LOOK_ANYWAY: Final = 1.0
#: Seconds between two tries while the store is away.
_TRY_EVERY: Final = 0.2


class Places:
    """Free places, while nobody else fills them.

    Args:
        free: models, and how many of each could run here now.
        token: what will prove the hold on what is granted.
        since: now, by the clock of the holdings.
    """

    def __init__(self, free: Iterable[tuple[str, int]], token: str, since: float) -> None:
        self.since = since
        self._free = dict(free)
        self._offered: Counter[str] = Counter()
        self.token = token

    def offer(self, model: str) -> str | None:
        """The token for one more request, where there is a place that was not offered to another one."""
        if self._offered[model] >= self._free.get(model, 0):
            return None
        self._offered[model] += 1
        return self.token

    def fill(self, model: str) -> None:
        """What was offered was granted."""
        self._free[model] -= 1

    @property
    def left(self) -> list[tuple[str, int]]:
        """Models, and how many places of each are still free."""
        return [(model, count) for model, count in self._free.items() if count > 0]


class Taker:
    """The thread "taker". `start` and `stop` are for its owner.

    Args:
        courier: reaches the store.
        group: knows its words.
        figures: make tokens.
        slots: what is free here.
        queue: where a taken job meets its slot; it waits there for a thread, and for nothing else.
        in_flight: what this worker has.
        holdings: the same, with what it takes to give it back.
        histories: where conversations are.
        reopening: makes a job of what was taken.
        endings: ends what cannot be run.
        may_take: whether anything is taken now: not while its replies could not leave.
        bells: where it sleeps in the store, for `LOOK_ANYWAY` seconds.
        clock: a monotonic one; the holdings' too.
    """

    def __init__(
        self,
        *,
        courier: Courier,
        group: RedisGroup,
        figures: Figures,
        slots: SlotTable,
        queue: RequestQueue,
        in_flight: InFlight,
        holdings: Holdings,
        histories: Histories,
        reopening: Reopening,
        endings: GroupEndings,
        may_take: Callable[[], bool],
        bells: Bells,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._courier = courier
        self._group = group
        self._figures = figures
        self._slots = slots
        self._queue = queue
        self._in_flight = in_flight
        self._holdings = holdings
        self._histories = histories
        self._reopening = reopening
        self._endings = endings
        self._may_take = may_take
        self._bells = bells
        self._clock = clock
        #: One taking at a time: two would take twice as much as is free.
        self._taking = threading.Lock()
        self._is_stopped = False
        self._changed = threading.Event()
        #: The models that the store is asked to ring for now; a slot of another one ends that wait.
        self._listens_to: Sequence[str] | None = None
        self._thread = threading.Thread(target=self._work, name="taker", daemon=True)

    def start(self) -> None:
        self._slots.when_free = self.look
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Take nothing more."""
        self._is_stopped = True
        self.look()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def look(self) -> None:
        """Something may have become free here. From any thread; does not wait."""
        self._changed.set()
        listens_to = self._listens_to
        if listens_to is not None and (self._is_stopped or {model for model, _ in self._wanted()} - set(listens_to)):
            self._listens_to = None
            self._courier.post(self._group.ring())

    @contextmanager
    def places(self) -> Iterator[Places]:
        """What is free here, while nobody else fills it: for those who decide what comes here."""
        with self._taking:
            free = [] if self._is_stopped else self._wanted()
            yield Places(free, self._figures.new_token(), self._clock())

    def _work(self) -> None:
        while not self._is_stopped:
            try:
                self._take_or_wait()
            except StoreError:
                time.sleep(_TRY_EVERY)
            except Exception:
                log.exception("jobs could not be taken")
                time.sleep(_TRY_EVERY)
        self._bells.close()

    def _take_or_wait(self) -> None:
        self._changed.clear()
        with self._taking:
            wanted = self._wanted()
            took = self.take(wanted) if wanted else None
        if took is None:
            self._changed.wait(LOOK_ANYWAY)
        elif took.again_in is not None:
            self._changed.wait(took.again_in)
        elif not took.jobs:
            self._sleep_in_the_store([model for model, _ in wanted])

    def _sleep_in_the_store(self, models: Sequence[str]) -> None:
        """Until one of these models has something to be taken, or another one a place here."""
        self._listens_to = models
        # One may have become free before that was seen.
        if not self._is_stopped and not {model for model, _ in self._wanted()}.difference(models):
            self._bells.wait([self._group.own_bell, *map(self._group.bell, models)])
        self._listens_to = None

    def take(self, wanted: Sequence[tuple[str, int]]) -> Took:
        """Fill places, so many of each model, with what has waited longest. For whoever has them.

        Raises:
            StoreError: the store does not answer.
        """
        since = self._clock()
        took = self._courier.ask(self._group.take(self._figures.new_token(), wanted, self._figures.not_after()))
        self.receive(took.jobs, since)
        return took

    def _wanted(self) -> list[tuple[str, int]]:
        """How many jobs of each model could run here now."""
        if not self._may_take():
            return []
        free = ((model, self._slots.free(model) - self._queue.fresh(model)) for model in self._slots.models)
        return [(model, count) for model, count in free if count > 0]

    def receive(self, jobs: Sequence[Taken], since: float, told: Future[Confirmed] | None = None) -> None:
        """Let jobs that were taken go their way here.

        Args:
            jobs: which.
            since: when the store was asked for them.
            told: where they were granted: what becomes of them, as their requesters have heard. Until then nothing is
                said of them.

        Raises:
            StoreAwayError: their conversations cannot be read now; others run them.
        """
        try:
            wanted = [Wanted(taken.session or "", taken.version if taken.session else 0) for taken in jobs]
            conversations = self._histories.read(wanted)
        except StoreAwayError:
            # Whoever reaps them runs them: nobody has begun.
            log.warning("taken from a store that is away now: %s", counted(len(jobs), "job"))
            raise
        for taken, conversation in zip(jobs, conversations, strict=True):
            try:
                job = self._reopening.job(taken, GroupClaim(taken, conversation))
            except UnreadableError as error:
                log.error("a job cannot be run: %s", error)  # noqa: TRY400
                self._endings.end(taken, UNREAD)
                continue
            self._holdings.add(taken, job, since)
            self._in_flight.add(job)
            if told is not None:
                job.replies.hold()
                told.add_done_callback(partial(self._confirmed, taken.job, job))
            self._queue.put(job)
            if job.outcome is not None and self._queue.remove(job):
                self._endings.later(job)

    def _confirmed(self, name: str, job: Job, told: Future[Confirmed]) -> None:
        """A job that was granted is ours, or not."""
        became = told.result()
        if name in became.gone or name in became.elsewhere:
            self._holdings.lose(name)
            job.replies.abandon()
            return
        if name in became.cancelled:
            job.mark(Failure("cancelled"))
        job.replies.release()
