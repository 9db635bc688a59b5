"""The gateway's life: connect, serve, let what is under way end, close. The thread that calls owns all the rest."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from inferbus_client.aio import AsyncClient
from inferbus_client.errors import BrokerError, BrokerRefusedError, IdTakenError, SettingsError
from inferbus_client.exchange.announced import Announced
from inferbus_client.fleet.groups import groups_of
from inferbus_client.gateway.bodies import Bodies
from inferbus_client.gateway.door import Rooms
from inferbus_client.gateway.keys import ApiKeys
from inferbus_client.gateway.metrics import Metrics
from inferbus_client.gateway.places import Places
from inferbus_client.gateway.visitors import Visitors
from inferbus_client.settings.gateway import GatewaySettings
from inferbus_client.tracing.spans import Tracer, process_tracer
from inferbus_client.units import format_duration
from inferbus_client.web.server import WebServer

log = logging.getLogger("inferbus.gateway")

_TICK: Final = 0.5
#: Seconds until a broker is asked again that has dropped us again and again, or cannot be reached.
_AGAIN: Final = 5.0
_STOP: Final = 3.0
#: Seconds for what the workers have said already.
_GATHER: Final = 1.0


def run(settings: GatewaySettings, started: Callable[[int, list[str]], None]) -> None:
    """Serve until SIGINT or SIGTERM, which let what is under way end; the second of them does not.

    Args:
        settings: the gateway's.
        started: told the port, once there are answers there, and the models that are served.

    Raises:
        SettingsError: something is not installed, or nobody can listen there, or the keys cannot be read.
        BrokerError: the broker cannot be reached at the start, or refuses us for good.
    """
    keys = None if settings.api_keys is None else ApiKeys(settings.api_keys)
    tracer = process_tracer("inferbus-gateway")  # before the client: who asks first names the service
    client = AsyncClient(settings)
    asyncio.run(client.connect())  # a signal ends this at once: nobody is served yet
    try:
        announced = asyncio.run(client.follow_workers())
        with _stopped_by_signals() as stop:
            server, rooms = _make(settings, client, announced, keys, tracer)
            server.start()
            try:
                started(server.port, [model["id"] for model in rooms.places.models(None)])
                _watch(client, announced, keys, stop)
            finally:
                rooms.is_closing = True
                _let_end(rooms, settings.drain_timeout, stop)
                rooms.places.end()  # whoever is still here hears why
                server.stop(_STOP)
    finally:
        asyncio.run(client.close())
        if tracer is not None:
            tracer.stop(_STOP)
    log.info("stopped")


def _make(
    settings: GatewaySettings, client: AsyncClient, announced: Announced, keys: ApiKeys | None, tracer: Tracer | None
) -> tuple[WebServer, Rooms]:
    from inferbus_client.gateway.app import make_app, workers_by_state  # noqa: PLC0415

    announced.wait_for(bool, _GATHER)
    bodies = Bodies(settings.max_body_bytes, settings.max_held_bytes)
    try:
        metrics = Metrics(
            held=lambda: bodies.held,
            is_connected=lambda: client.is_connected,
            workers=lambda: workers_by_state(announced.presences),
            groups=lambda: groups_of(announced.workers),
        )
        rooms = Rooms(
            client=client,
            places=Places(announced, settings),
            visitors=Visitors(keys, settings.cors_origins),
            bodies=bodies,
            metrics=metrics,
            max_requests=settings.max_requests,
            tracer=tracer,
        )
        app = make_app(rooms, announced, settings.cors_origins)
        server = WebServer(app, settings.listen, "http", max_connections=settings.max_connections)
    except ModuleNotFoundError as error:
        raise SettingsError(f"the gateway needs {error.name}: pip install 'inferbus-client[gateway]'") from None
    return server, rooms


def _watch(client: AsyncClient, announced: Announced, keys: ApiKeys | None, stop: threading.Event) -> None:
    """Wait for the end. A connection that was lost is repaired by itself; one that was given up is made anew.

    The keys are looked after here, too: who reads many of them keeps nobody waiting, and what is wrong is said at once.
    """
    while not stop.wait(_TICK):
        if keys is not None:
            keys.look()
        if not client.is_open:
            log.warning("the connection to the broker was given up; trying again in %s", format_duration(_AGAIN))
            # Two who have one id would else take it from each other without a pause.
            if stop.wait(_AGAIN):
                return
            try:
                asyncio.run(_connect_again(client, announced))
            except (IdTakenError, BrokerRefusedError):
                raise
            except BrokerError as error:
                log.warning("%s", error)


async def _connect_again(client: AsyncClient, announced: Announced) -> None:
    await client.connect()
    try:
        await client.follow_workers(announced)
    except BrokerError:
        await client.close()  # deaf it is of no use
        raise


def _let_end(rooms: Rooms, seconds: float, stop: threading.Event) -> None:
    """Let requests under way end. Those that come meanwhile hear that we are going."""
    stop.clear()
    waits = "draining: %d under way, for at most %s; a second signal ends at once"
    log.info(waits, rooms.metrics.running, format_duration(seconds))
    until = time.monotonic() + seconds
    while rooms.under_way and time.monotonic() < until and not stop.wait(_TICK / 5):
        pass


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """While inside, SIGINT and SIGTERM set the event instead of ending the program."""
    stop = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
