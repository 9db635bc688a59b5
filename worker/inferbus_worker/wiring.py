"""Builds every room from the settings: afterwards no socket is open, and nothing runs but the writer of attempts.

The tests build theirs with it too, with a clock that stands still and without a bus.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inferbus_client.errors import SettingsError
from inferbus_client.tracing.spans import Tracer, process_tracer
from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.admission.admission import Admission
from inferbus_worker.admission.gate import Gate
from inferbus_worker.admission.intake import Intake
from inferbus_worker.admission.limits import RateLimits
from inferbus_worker.admission.reception import Reception
from inferbus_worker.admission.token_budget import TokenBudget
from inferbus_worker.admission.verbs import Verbs
from inferbus_worker.bus.acknowledgements import Acknowledgements
from inferbus_worker.bus.attempts import Attempts
from inferbus_worker.bus.connection import Bus
from inferbus_worker.bus.delivery import receive_maximum
from inferbus_worker.chat import Usage
from inferbus_worker.engines.factory import Lineup
from inferbus_worker.engines.registry import Registry
from inferbus_worker.engines.slot import Model
from inferbus_worker.engines.slot_lives import SlotLives
from inferbus_worker.engines.slots import SlotTable
from inferbus_worker.flow.endings import Endings, endings_in_memory
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.overdue import Overdue
from inferbus_worker.flow.prompt import Prompts
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.flow.turn import TurnRunner
from inferbus_worker.flow.worker_pool import WorkerPool
from inferbus_worker.ops.http import make_http
from inferbus_worker.ops.readiness import Readiness, missing
from inferbus_worker.ops.reporter import Reporter
from inferbus_worker.replies.address import Owed, Receipt
from inferbus_worker.replies.sender import Sender
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.memory import memory_stores
from inferbus_worker.state.protocols import Levels, Stores

if TYPE_CHECKING:
    from inferbus_client.web.server import WebServer
    from inferbus_worker.engines.managed.keeper import Keeper
    from inferbus_worker.group.membership import Membership
    from inferbus_worker.state.redis.courier import Courier


@dataclass(frozen=True)
class Rooms:
    """Everything between the bus and the engine, in the order in which a request meets it."""

    acknowledgements: Acknowledgements
    reception: Reception
    intake: Intake
    limits: RateLimits
    budget: TokenBudget | None
    stores: Stores
    queue: RequestQueue
    in_flight: InFlight
    registry: Registry
    slots: SlotTable
    pool: WorkerPool
    turns: TurnRunner
    endings: Endings
    overdue: Overdue
    meter: Meter
    sender: Sender
    membership: Membership | None = None

    def levels(self) -> Levels:
        """Everything in this process that is bounded, by the name that the stats give it."""
        here = {**self.intake.levels(), **self.queue.levels(), **self.sender.levels()}
        if self.membership is not None:
            return here
        budgets = {} if self.stores.budgets is None else self.stores.budgets.levels()
        return {**here, **self.stores.levels(), **self.limits.levels(), **budgets}


def build_rooms(
    settings: Settings,
    models: Mapping[str, Model],
    *,
    gate: Gate,
    acknowledge: Callable[[int], None],
    in_network_thread: Callable[[Callable[[], None]], None],
    attempts: Attempts | None = None,
    stores: Stores | None = None,
    courier: Courier | None = None,
    sender: Sender | None = None,
    tracer: Tracer | None = None,
    clock: Callable[[], float] = time.monotonic,
    in_place: bool = False,
    has_broker: Callable[[], bool] = lambda: True,
) -> Rooms:
    """The rooms, without their threads.

    Args:
        settings: the worker's.
        models: what answers, by key.
        gate: whether admission takes anything now.
        acknowledge: tells the broker of a message by its packet identifier; called in the network thread.
        in_network_thread: has that thread do something.
        attempts: counts turns that ended their worker, where messages are acknowledged after the reply.
        stores: what workers share; in memory where none are given.
        courier: reaches the store of a group; one is made where none is given.
        sender: the sender; one is made where none is given.
        tracer: makes spans of requests, where that is wanted.
        clock: a monotonic one.
        in_place: whether admission runs in its caller's thread whatever it may have to wait for.
        has_broker: whether replies can leave now.
    """
    stores = stores or memory_stores(settings, clock)
    at_once = receive_maximum(settings)
    acknowledgements = Acknowledgements(
        acknowledge,
        attempts=attempts,
        max_attempts=settings.max_attempts,
        at_once=at_once,
        keeps=settings.ack == "after-reply",
    )

    def ended(receipt: Receipt | Owed, *, arrived: bool) -> None:
        if isinstance(receipt, Receipt):
            acknowledgements.answered(receipt, arrived=arrived)
        elif membership is not None:
            membership.endings.left(receipt)

    sender = sender or Sender(
        qos=settings.reply_qos,
        max_bytes=settings.max_outbound_bytes,
        delta_interval=settings.delta_interval,
        answered=ended,
    )
    registry = Registry(models, settings.projects)
    slots = SlotTable(models, max_threads=settings.max_workers, clock=clock)
    queue = RequestQueue(
        settings.queue_size,
        settings.projects,
        models=registry.lanes,
        places=slots,
        ageing=settings.ageing,
        clock=clock,
    )
    in_flight, pool = InFlight(), WorkerPool(queue)
    prompts = Prompts(settings)
    limits = RateLimits(settings, stores.windows)
    addressing = Addressing(sender, settings.reply_topics, tracer)

    def longest(job: Job) -> Usage:
        return prompts.of(job, registry.counting(job.model)).longest

    def unanswered(receipt: Receipt | Owed | None) -> None:
        if receipt is not None:
            in_network_thread(lambda: acknowledgements.answered(receipt, arrived=False))

    def in_good_hands(receipt: Receipt | Owed | None) -> None:
        if receipt is not None:
            in_network_thread(lambda: acknowledgements.answered(receipt, arrived=True))

    membership: Membership | None = None
    if settings.is_shared:
        from inferbus_worker.group.building import Base, join_group  # noqa: PLC0415 - not for every worker

        base = Base(
            settings=settings,
            gate=gate,
            registry=registry,
            slots=slots,
            queue=queue,
            in_flight=in_flight,
            limits=limits,
            sender=sender,
            addressing=addressing,
            tracer=tracer,
            prompts=prompts,
            acknowledge=in_good_hands,
            courier=courier,
            has_broker=has_broker,
            clock=clock,
        )
        membership = join_group(base)
    meter = Meter(slots, clock=clock) if membership is None else membership.meter
    endings = (
        endings_in_memory(in_flight=in_flight, meter=meter, recent=stores.recent)
        if membership is None
        else membership.endings
    )
    turns = TurnRunner(slots, registry, settings, prompts, queue, endings, acknowledgements.turn_begins, clock)
    budget = _token_budget(settings, longest, stores)
    admission = Admission(
        settings=settings,
        stores=stores,
        limits=limits,
        budget=budget,
        registry=registry,
        queue=queue,
        in_flight=in_flight,
        meter=meter,
        addressing=addressing,
        gate=gate,
        clock=clock,
    )
    verbs = Verbs(
        admission=admission,
        addressing=addressing,
        in_flight=in_flight,
        queue=queue,
        endings=endings,
    )
    intake = Intake(
        verbs if membership is None else membership.desk,
        lambda arrival: unanswered(arrival.receipt),
        max_bytes=settings.max_intake_bytes,
        in_own_thread=(budget is not None or membership is not None) and not in_place,
        together=None if membership is None else membership.desk.handle_all,
        clock=clock,
    )
    reception = Reception(
        projects=settings.projects,
        intake=intake,
        acknowledgements=acknowledgements,
        users=settings.identity == "topic",
        max_held=at_once,
        max_held_bytes=settings.max_message_bytes,
        max_conversation_bytes=settings.conversation_bytes,
        clock=clock,
    )
    return Rooms(
        acknowledgements=acknowledgements,
        reception=reception,
        intake=intake,
        limits=limits,
        budget=budget,
        stores=stores,
        queue=queue,
        in_flight=in_flight,
        registry=registry,
        slots=slots,
        pool=pool,
        turns=turns,
        endings=endings,
        overdue=Overdue(registry, queue, in_flight, endings, settings.slot_timeout_in_force, clock),
        meter=meter,
        sender=sender,
        membership=membership,
    )


def _token_budget(settings: Settings, longest: Callable[[Job], Usage], stores: Stores) -> TokenBudget | None:
    if settings.token_budget is None or stores.budgets is None:
        return None
    return TokenBudget(settings.token_budget, longest, stores.budgets)


@dataclass(frozen=True)
class House:
    """The rooms, the bus in front of them, and what watches over them."""

    gate: Gate
    rooms: Rooms
    bus: Bus
    reporter: Reporter
    readiness: Readiness
    http: WebServer | None
    lives: SlotLives
    keeper: Keeper | None
    tracer: Tracer | None


def build_house(settings: Settings, lineup: Lineup, drain_asked: Callable[[], None] = lambda: None) -> House:
    """A whole worker, not yet started.

    Args:
        settings: the worker's.
        lineup: its engines.
        drain_asked: called in the network thread when an operator asks it to leave.

    Raises:
        SettingsError: the state folder cannot be used, or nobody can listen for HTTP where it is to be.
    """
    keeps, gate = settings.ack == "after-reply", Gate()

    # The bus comes after the rooms, and the reporter after the bus; what goes back to them is asked for later.
    def acknowledge(ack_id: int) -> None:
        bus.link.acknowledge(ack_id)

    def in_network_thread(wish: Callable[[], None]) -> None:
        bus.link.call(wish)

    def stats_asked() -> None:
        reporter.asked()

    tracer = process_tracer("inferbus-worker")
    rooms = build_rooms(
        settings,
        lineup.models,
        gate=gate,
        acknowledge=acknowledge,
        in_network_thread=in_network_thread,
        # In a group the store counts attempts, and keeps what is not answered.
        attempts=_open_attempts(settings) if keeps and not settings.is_shared else None,
        tracer=tracer,
        has_broker=lambda: bus.link.is_up,
    )
    if keeps:
        rooms.reception.hold()
    bus = Bus(
        settings,
        sender=rooms.sender,
        receive=rooms.reception.receive,
        asked=stats_asked,
        came_up=lambda: rooms.reception.came_up(remembered=bus.link.session_present),
        model=rooms.registry.default.name,
        drain_asked=drain_asked,
    )
    reporter = Reporter(
        settings,
        meter=rooms.meter,
        registry=rooms.registry,
        queue=rooms.queue,
        in_flight=rooms.in_flight,
        sessions=rooms.stores.sessions,
        sender=rooms.sender,
        levels=rooms.levels,
        unreadable=lambda: bus.link.unreadable,
        publish=bus.publish_stats,
        group=None if rooms.membership is None else rooms.membership.stats,
    )
    lives = SlotLives(rooms.slots.slots, settings.engine_silence, kept=lineup.managed)

    def away() -> str | None:
        """Why the store cannot be reached."""
        return None if rooms.membership is None else rooms.membership.courier.reason

    readiness = Readiness(rooms.registry, rooms.slots, bus.announce, away=away)
    http = make_http(
        settings, reporter.reading, lambda: missing(gate, rooms.registry, bus.link, away), lambda: rooms.pool.size
    )
    return House(gate, rooms, bus, reporter, readiness, http, lives, _keeper(lineup, rooms), tracer)


def _keeper(lineup: Lineup, rooms: Rooms) -> Keeper | None:
    if lineup.budget is None:
        return None
    from inferbus_worker.engines.managed.upkeep import make_keeper  # noqa: PLC0415 - not for every worker

    return make_keeper(rooms.slots, lineup.managed, lineup.budget, rooms.queue.queued)


def _open_attempts(settings: Settings) -> Attempts:
    """The counts on disk. A file that could never be used is a mistake; one that is locked for now is not."""
    file = settings.state_dir / f"{settings.worker_id}.sqlite"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=0)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "sqlite_errorcode", None) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            words = getattr(error, "strerror", None) or error
            raise SettingsError(f"the state folder cannot be used ({file}): {words}") from None
    return Attempts(file)
