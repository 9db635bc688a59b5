"""Builds what a worker has more as a member of a group, around the rooms that every worker has."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inferbus_client.tracing.spans import Tracer
from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.admission.gate import Gate
from inferbus_worker.admission.limits import RateLimits
from inferbus_worker.engines.registry import Registry
from inferbus_worker.engines.slots import SlotTable
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.prompt import Prompts
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.group.bidding import Bidding
from inferbus_worker.group.cancels import Cancels
from inferbus_worker.group.desk import Desk
from inferbus_worker.group.endings import GroupEndings
from inferbus_worker.group.figures import Figures
from inferbus_worker.group.histories import Histories
from inferbus_worker.group.holdings import Holdings
from inferbus_worker.group.keeper import Keeper
from inferbus_worker.group.membership import Membership
from inferbus_worker.group.reopening import Reopening
from inferbus_worker.group.taker import LOOK_ANYWAY, Taker
from inferbus_worker.replies.address import Owed, Receipt
from inferbus_worker.replies.sender import Sender
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.redis.bells import Bells
from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.courier import Courier
from inferbus_worker.state.redis.group import RedisGroup
from inferbus_worker.state.redis.places import store_of
from inferbus_worker.state.redis.scripts import sources


@dataclass(frozen=True)
class Base:
    """The rooms that every worker has, as far as a group needs them."""

    settings: Settings
    gate: Gate
    registry: Registry
    slots: SlotTable
    queue: RequestQueue
    in_flight: InFlight
    limits: RateLimits
    sender: Sender
    addressing: Addressing
    tracer: Tracer | None
    prompts: Prompts
    acknowledge: Callable[[Receipt | Owed | None], None]
    has_broker: Callable[[], bool]
    courier: Courier | None = None
    clock: Callable[[], float] = time.monotonic


def _group(settings: Settings, lanes: Mapping[str, list[str]], store: Store) -> RedisGroup:
    """This worker's part of its group."""
    instance = f"{settings.worker_id}.{secrets.token_hex(4)}"
    return RedisGroup(
        settings.group,
        instance,
        settings.worker_id,
        projects=settings.projects,
        lanes=lanes,
        queue_size=settings.queue_size,
        ageing=settings.ageing,
        lease=settings.lease,
        retry_memory=settings.retry_memory,
        session_ttl=settings.session_ttl,
        max_sessions=settings.max_sessions,
        max_history_bytes=settings.max_history_bytes,
        max_attempts=settings.max_attempts,
        is_spread=store.is_cluster,
    )


def join_group(base: Base) -> Membership:
    """Build it; nothing is connected, and nothing runs yet."""
    settings, registry = base.settings, base.registry
    store = Store(store_of(settings))
    group = _group(settings, registry.lanes, store)
    figures = Figures(group.instance, base.slots, base.clock)
    meter = Meter(figures, clock=base.clock)
    courier = base.courier or Courier(store, group.prefix, sources())
    holdings = Holdings(settings.lease, base.clock)
    histories = Histories(courier, group, settings.max_history_bytes, settings.max_sessions)
    reopening = Reopening(settings.worker_id, base.sender, base.tracer, settings.slot_timeout_in_force, base.clock)
    endings = GroupEndings(
        in_flight=base.in_flight,
        meter=meter,
        courier=courier,
        group=group,
        holdings=holdings,
        histories=histories,
        reopening=reopening,
        figures=figures,
    )
    taker = Taker(
        courier=courier,
        group=group,
        figures=figures,
        slots=base.slots,
        queue=base.queue,
        in_flight=base.in_flight,
        holdings=holdings,
        histories=histories,
        reopening=reopening,
        endings=endings,
        may_take=lambda: base.has_broker() and not base.sender.congested,
        bells=Bells(store, group.prefix, LOOK_ANYWAY),
        clock=base.clock,
    )
    desk = Desk(
        settings=settings,
        courier=courier,
        group=group,
        figures=figures,
        addressing=base.addressing,
        bidding=Bidding(settings, base.limits, registry, meter, figures, reopening, base.prompts, base.clock),
        meter=meter,
        gate=base.gate,
        histories=histories,
        cancels=Cancels(group, base.in_flight, holdings, reopening, endings, figures),
        taker=taker,
        acknowledge=base.acknowledge,
    )
    keeper = Keeper(
        lease=settings.lease,
        courier=courier,
        group=group,
        figures=figures,
        holdings=holdings,
        histories=histories,
        endings=endings,
        reopening=reopening,
        registry=registry,
        slots=base.slots,
        sender=base.sender,
        has_broker=base.has_broker,
        slot_timeout=settings.slot_timeout_in_force,
        clock=base.clock,
    )
    return Membership(settings, courier, group, figures, meter, holdings, desk, endings, taker, keeper)
