"""Trial 43: what a program does to a client, and what a network does: each caller hears of it at once, in its type."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client import (
    AsyncClient,
    BrokerError,
    BrokerUnreachableError,
    Client,
    ClientClosedError,
    ConnectionLostError,
    IdTakenError,
    NotConnectedError,
    RateLimitedError,
    RequestTimeoutError,
)
from inferbus_client.contract.wire import Accepted
from support.fake_worker import FakeWorker, WaitForCancel, accepted, echo, error
from support.fault_proxy import Fault, FaultProxy
from support.mosquitto import Mosquitto, free_port
from support.trials import size
from support.waiting import until

#: What "at once" is on a machine that is busy: far below `_PATIENCE`, which is what they would wait else.
_AT_ONCE: Final = 30.0
_PATIENCE: Final = 120.0
#: What a broker of MQTT 5 says to a client whose id another one has taken. Mosquitto just hangs up.
_SESSION_TAKEN_OVER: Final = bytes([0xE0, 2, 0x8E, 0])


@pytest.fixture
def worker(broker: Mosquitto) -> Iterator[FakeWorker]:
    with FakeWorker(broker.port, project=f"clients-{uuid.uuid4().hex[:8]}") as worker:
        yield worker


# --- no connection, in each of the verbs ---

_VERBS: Final[dict[str, Callable[[Any], Any]]] = {
    "ask": lambda client: client.ask("x", timeout=_PATIENCE),
    "stream": lambda client: client.stream("x", timeout=_PATIENCE),
    "reset": lambda client: client.reset(timeout=_PATIENCE),
    "new_session": lambda client: client.new_session(timeout=_PATIENCE),
    "cancel": lambda client: client.cancel(),
    "repeat": lambda client: client.repeat(),
    "workers": lambda client: client.workers(),
    "listen_to_every_session": lambda client: client.listen_to_every_session(),
}


@contextmanager
def at_once() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < _AT_ONCE


@pytest.mark.parametrize("verb", _VERBS)
def test_a_client_that_was_never_connected_says_so(broker: Mosquitto, verb: str) -> None:
    async def from_a_loop() -> None:
        called = _VERBS[verb](AsyncClient(broker.url))
        if isinstance(called, Awaitable):
            await called

    with at_once(), pytest.raises(NotConnectedError):
        _VERBS[verb](Client(broker.url))
    with at_once(), pytest.raises(NotConnectedError):
        asyncio.run(from_a_loop())


@pytest.mark.parametrize("verb", _VERBS)
def test_a_closed_client_says_so(broker: Mosquitto, worker: FakeWorker, verb: str) -> None:
    async def from_a_loop() -> None:
        async with AsyncClient(broker.url, project=worker.project) as client:
            assert (await client.ask("hello")).text == "You said: hello"
        called = _VERBS[verb](client)
        if isinstance(called, Awaitable):
            await called

    with Client(broker.url, project=worker.project) as client:
        assert client.ask("hello").text == "You said: hello"
    with at_once(), pytest.raises(ClientClosedError):
        _VERBS[verb](client)
    with at_once(), pytest.raises(ClientClosedError):
        asyncio.run(from_a_loop())


def test_a_client_that_could_not_connect_is_not_connected() -> None:
    client = Client("mqtt://127.0.0.1:1", connect_timeout=0.1)
    with pytest.raises(BrokerUnreachableError):
        client.connect()
    with at_once(), pytest.raises(NotConnectedError):
        client.ask("x", timeout=_PATIENCE)


# --- the connection ends for good, and somebody waits: for whatever there is to wait for ---


class Waiting:
    """A client, and asks in threads of its own that wait for something."""

    def __init__(self, client: Client, worker: FakeWorker, proxy: FaultProxy) -> None:
        self.client = client
        self.worker = worker
        self.proxy = proxy
        self._pool = ThreadPoolExecutor(8)

    def ask(self, **options: Any) -> Future[Any]:
        return self._pool.submit(self.client.ask, "x", **{"timeout": _PATIENCE, **options})

    def for_the_answer(self) -> Future[Any]:
        asked = self.ask()
        until(lambda: self.worker.heard)
        return asked

    def for_the_turn(self) -> Future[Any]:
        self.for_the_answer()
        return self.ask()

    def for_a_stream_that_nobody_reads(self) -> Future[Any]:
        self.worker.script = echo
        stream = self.client.stream("x")
        next(stream)
        self._stream = stream
        return self.ask()

    def for_the_next_attempt(self) -> Future[Any]:
        self.worker.script = lambda _: [error("rate_limited", retry_after_ms=15_000)]
        return self.for_the_answer()

    def for_a_slot_to_send_in(self) -> Future[Any]:
        self.worker.script = echo
        self.ask().result()
        return self.ask()

    def for_the_subscription(self) -> Future[Any]:
        self.proxy.fault = Fault(swallow=True)
        return self.ask(session="another")


_WAITS: Final = sorted(name for name in vars(Waiting) if name.startswith("for_"))


@pytest.fixture
def waiting(broker: Mosquitto, worker: FakeWorker) -> Iterator[Waiting]:
    worker.script = lambda _: [accepted(), WaitForCancel(_PATIENCE)]
    with FaultProxy(broker.port) as proxy:
        client = Client(proxy.url, project=worker.project, client_id="waits", pacing="15s")
        waiting = Waiting(client.connect(), worker, proxy)
        yield waiting
        client.close()
        waiting._pool.shutdown()


@pytest.mark.parametrize("what", _WAITS)
def test_closing_ends_every_wait(waiting: Waiting, what: str) -> None:
    asked = getattr(waiting, what)()
    time.sleep(0.2)  # until it waits there; where it does not yet, it hears of it all the same
    with at_once():
        waiting.client.close()
        with pytest.raises(ClientClosedError):
            asked.result(_PATIENCE)


@pytest.mark.parametrize("what", _WAITS)
def test_losing_the_id_ends_every_wait(waiting: Waiting, what: str) -> None:
    asked = getattr(waiting, what)()
    time.sleep(0.2)
    with at_once():
        waiting.proxy.say(_SESSION_TAKEN_OVER)
        with pytest.raises(IdTakenError):
            asked.result(_PATIENCE)
        with pytest.raises(IdTakenError):
            waiting.client.ask("x", timeout=_PATIENCE)


def test_waiting_tasks_hear_of_it_too(broker: Mosquitto, worker: FakeWorker) -> None:
    worker.script = lambda _: [accepted(), WaitForCancel(_PATIENCE)]

    async def main() -> None:
        async with AsyncClient(broker.url, project=worker.project) as client:
            tasks = [asyncio.create_task(client.ask("x", session=f"s{number % 10}")) for number in range(50)]
            await asyncio.to_thread(until, lambda: len(worker.heard) == 10)
            with at_once():
                await client.close()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {ClientClosedError}

    asyncio.run(main())


def test_a_network_thread_that_fails_while_there_is_no_connection(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a broker says to the next CONNECT is not ours to choose either."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of our own")

    asked = waiting.for_the_answer()
    monkeypatch.setattr(waiting.client._core._connected._link._connection, "_shake_hands", fail)
    waiting.proxy.reset_all()
    with at_once(), pytest.raises(ConnectionLostError, match="network thread"):
        asked.result(_PATIENCE)


def test_what_still_runs_at_the_end_is_cancelled(broker: Mosquitto, worker: FakeWorker) -> None:
    worker.script = lambda _: [accepted(), WaitForCancel(_PATIENCE)]
    asks = size(50, 200)
    with ThreadPoolExecutor(asks) as pool:
        with Client(broker.url, project=worker.project) as client:
            asked = [pool.submit(client.ask, "x", session=f"run-{number}") for number in range(asks)]
            until(lambda: len(worker.heard) == asks)
        for future in asked:
            with pytest.raises(ClientClosedError):
                future.result(_PATIENCE)
    until(lambda: len(worker.cancels) >= asks)
    assert sorted(session for session, _ in worker.cancels) == sorted(f"run-{number}" for number in range(asks))


# --- opened again ---


def test_a_client_can_be_opened_again(broker: Mosquitto, worker: FakeWorker) -> None:
    client = Client(broker.url, project=worker.project, pacing=0)
    for _ in range(3):
        with client:
            assert client.ask("x").text == "You said: x"
            client.connect()  # which it is
            assert client.ask("y", session="another").text == "You said: y"
    client.close()


def test_an_async_client_can_be_opened_again_in_another_loop(broker: Mosquitto, worker: FakeWorker) -> None:
    client = AsyncClient(broker.url, project=worker.project, pacing=0)

    async def main() -> None:
        async with client:
            await client.listen_to_every_session()
            assert (await client.ask("x")).text == "You said: x"

    for _ in range(3):
        asyncio.run(main())


def test_a_client_that_lost_its_id_can_take_it_back(waiting: Waiting) -> None:
    waiting.worker.script = echo
    transport = waiting.client._core._connected
    waiting.proxy.say(_SESSION_TAKEN_OVER)
    until(lambda: not transport.is_open)
    waiting.client.connect()
    assert waiting.client.ask("x").text == "You said: x"


def test_a_client_that_could_not_connect_can_try_again(own_broker: Mosquitto) -> None:
    client = Client(own_broker.url, connect_timeout=0.1)
    own_broker.kill()
    with pytest.raises(BrokerUnreachableError):
        client.connect()
    own_broker.start()
    with FakeWorker(own_broker.port), client:
        assert client.ask("x").text == "You said: x"


# --- leaks ---


def threads_and_files() -> tuple[set[str], int]:
    """The threads of clients that run, and how many files are open."""
    gc.collect()
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if "inferbus" in name or "asyncio" in name}, len(
        list(Path("/proc/self/fd").iterdir())
    )


def is_as(before: tuple[set[str], int]) -> bool:
    """Whether there is no more than before; what an earlier test had may have gone meanwhile."""
    names, files = threads_and_files()
    return names <= before[0] and files <= before[1]


def test_cancelled_tasks_hold_no_thread(broker: Mosquitto, report: Callable[..., None]) -> None:
    """They wait for a subscription that nobody answers; an executor's threads could not be had back from there."""
    tasks = size(20, 200)

    async def main() -> float:
        with FaultProxy(broker.port) as proxy:
            client = await AsyncClient(proxy.url).connect()
            proxy.fault = Fault(swallow=True)
            asked = [asyncio.create_task(client.ask("x", session=f"s{n}", timeout=_PATIENCE)) for n in range(tasks)]
            await asyncio.sleep(0.5)
            for task in asked:
                task.cancel()
            ends = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
            began = time.monotonic()
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            await client.close()
            return time.monotonic() - began

    before = threads_and_files()
    took = asyncio.run(main())
    assert took < _AT_ONCE
    until(lambda: is_as(before))
    report(43, f"{tasks} cancelled tasks: the executor was free and the client closed after {took:.2f} s")


def test_a_program_whose_executor_is_full_can_still_ask(broker: Mosquitto, worker: FakeWorker) -> None:
    async def main() -> None:
        loop, end = asyncio.get_running_loop(), threading.Event()
        blocked = [loop.run_in_executor(None, end.wait, _PATIENCE) for _ in range(64)]
        try:
            with at_once():
                async with AsyncClient(broker.url, project=worker.project) as client:
                    assert (await client.ask("x")).text == "You said: x"
        finally:
            end.set()
            await asyncio.gather(*blocked)

    asyncio.run(main())


def test_a_cancelled_connect_leaves_nothing(broker: Mosquitto) -> None:
    async def main() -> None:
        with FaultProxy(broker.port) as proxy:
            proxy.fault = Fault(swallow=True)
            client = AsyncClient(proxy.url, connect_timeout=2)
            connecting = asyncio.create_task(client.connect())
            await asyncio.sleep(0.5)
            connecting.cancel()
            with at_once(), pytest.raises(asyncio.CancelledError):
                await connecting
            with at_once(), pytest.raises(NotConnectedError):
                await client.ask("x")
            await asyncio.to_thread(until, lambda: not threads_and_files()[0] - {"asyncio_0"})

    before = threads_and_files()
    asyncio.run(main())
    until(lambda: is_as(before))


def test_a_connect_that_is_cancelled_before_it_began_leaves_nothing(broker: Mosquitto) -> None:
    """Its thread may come to nothing but the wish to connect until the one that closes is through."""

    async def main() -> None:
        for _ in range(size(40, 400)):
            client = AsyncClient(broker.url)
            connecting = asyncio.create_task(client.connect())
            await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting

    before = threads_and_files()
    asyncio.run(main())
    until(lambda: is_as(before))


def test_a_connect_that_waits_for_another_is_closed_with_it(broker: Mosquitto) -> None:
    with FaultProxy(broker.port) as proxy, ThreadPoolExecutor(2) as pool:
        proxy.fault = Fault(swallow=True)
        client, begun = Client(proxy.url, connect_timeout=_PATIENCE), threading.Barrier(2)

        def connect() -> None:
            begun.wait(_PATIENCE)
            client.connect()

        connecting = [pool.submit(connect) for _ in range(2)]
        until(lambda: proxy.accepted)
        proxy.fault = Fault()
        with at_once():
            client.close()
            assert {type(one.exception(_PATIENCE)) for one in connecting} == {ClientClosedError}
    assert not client.is_connected


def test_closing_while_it_connects(broker: Mosquitto) -> None:
    with FaultProxy(broker.port) as proxy, ThreadPoolExecutor(1) as pool:
        proxy.fault = Fault(swallow=True)
        client = Client(proxy.url, connect_timeout=2)
        connecting = pool.submit(client.connect)
        until(lambda: proxy.accepted)
        with at_once():
            client.close()
        with pytest.raises(BrokerError):
            connecting.result(_PATIENCE)
        proxy.fault = Fault()
        with client:
            assert client.is_v5


def test_closing_while_nobody_answers() -> None:
    with ThreadPoolExecutor(1) as pool:
        client = Client(f"mqtt://127.0.0.1:{free_port()}", connect_timeout=_PATIENCE)
        connecting = pool.submit(client.connect)
        until(lambda: any(thread.name == f"network-{client.client_id}" for thread in threading.enumerate()))
        with at_once():
            client.close()
            assert type(connecting.exception(_PATIENCE)) is ClientClosedError


def test_clients_leave_neither_threads_nor_files_behind(broker: Mosquitto, worker: FakeWorker) -> None:
    before = threads_and_files()
    clients = [Client(broker.url, project=worker.project) for _ in range(20)]
    assert is_as(before)  # none is connected yet
    with ExitStack() as opened:
        for client in clients:
            opened.enter_context(client).ask("x")
    for client in clients:
        with suppress(ClientClosedError):
            client.ask("x")
    until(lambda: is_as(before))


def test_threads_that_gave_up_leave_nothing_in_the_client(waiting: Waiting, report: Callable[..., None]) -> None:
    """Half of them waited for a turn, half for an answer; then their sessions are free, and nothing is remembered."""
    threads, places = size(200, 1000), list[Accepted]()
    core = waiting.client._core

    def ask(number: int) -> type[Exception]:
        try:
            waiting.client.ask(
                "x", session=f"s{number // 2}", timeout=2, retries=0, on_accepted=places.append, when_busy="wait"
            )
        except (RequestTimeoutError, RateLimitedError) as error:
            return type(error)
        raise AssertionError("it was answered")

    with ThreadPoolExecutor(threads) as pool:
        assert set(pool.map(ask, range(threads))) == {RequestTimeoutError}
    transport = core._connected
    assert (transport._attending, transport._waiters.all(), transport._waiters.by_topic) == (set(), [], {})
    assert (dict(core._turns._first), core._turns._lines) == ({}, {})
    until(lambda: len(waiting.worker.cancels) >= len(places))
    report(43, f"{threads} threads gave up, {len(places)} of them after their request was accepted: nothing is left")


# --- pacing ---


@pytest.mark.parametrize("sessions", [1, 10_000], ids=["one-session", "a-session-each"])
def test_a_burst_that_gave_up_leaves_no_slot_behind(
    broker: Mosquitto, worker: FakeWorker, report: Callable[..., None], sessions: int
) -> None:
    """A request that runs out of time while it waits to be sent owes nobody anything."""
    threads = size(200, 1000)
    with Client(broker.url, project=worker.project, pacing=1) as client, ThreadPoolExecutor(threads) as pool:

        def ask(number: int) -> bool:
            try:
                client.ask("x", session=f"burst-{number % sessions}", timeout=0.4, retries=0)
            except (RequestTimeoutError, ConnectionLostError):  # the latter: time was up before it was subscribed
                return False
            return True

        ask(0)
        answered = sum(pool.map(ask, range(threads)))
        began = time.monotonic()
        assert client.ask("after it", session="burst-0", timeout=20).text == "You said: after it"
        waited = time.monotonic() - began
    report(43, f"{threads} threads, {answered} answered within 0.4 s; the next ask took {waited:.2f} s")


def test_threads_with_a_question_each_do_not_wait_for_one_another(broker: Mosquitto, worker: FakeWorker) -> None:
    """Pacing is a session's own: 50 of them at the default pace would else take 24.5 s."""
    with Client(broker.url, project=worker.project) as client, ThreadPoolExecutor(50) as pool:
        began = time.monotonic()
        answers = list(pool.map(lambda number: client.ask("x", session=f"s{number}").text, range(50)))
        assert time.monotonic() - began < 20
    assert answers == ["You said: x"] * 50
