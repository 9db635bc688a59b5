"""`Client` and `AsyncClient` over a real Mosquitto, against a worker that answers as the test says."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from inferbus_client import (
    AsyncClient,
    BrokerUnreachableError,
    Client,
    ConnectionLostError,
    InvalidRequestError,
    RequestCancelledError,
    RequestTimeoutError,
    SessionBusyError,
    UnavailableError,
)
from inferbus_client.contract.wire import Accepted
from inferbus_client.mqtt.link import Link
from support.fake_worker import (
    Act,
    FakeWorker,
    SayText,
    Wait,
    WaitForCancel,
    accepted,
    delta,
    done,
    echo,
    error,
)
from support.mosquitto import Mosquitto, mosquitto_pub
from support.streams import text
from support.waiting import until


@pytest.fixture(params=["5", "3.1.1"])
def client(request: pytest.FixtureRequest, broker: Mosquitto, fake_worker: FakeWorker) -> Iterator[Client]:
    """A client of the fake worker, over both versions of MQTT."""
    with connect(broker, fake_worker, mqtt_version=request.param) as client:
        yield client


def connect(broker: Mosquitto, worker: FakeWorker, **settings: Any) -> Client:
    return Client(broker.url, project=worker.project, **{"pacing": 0, "timeout": 20, **settings})


def streaming(*words: str) -> list[Act]:
    return [accepted(), *(delta(word) for word in words), done("".join(words))]


# --- the verbs ---


def test_ask(client: Client, fake_worker: FakeWorker) -> None:
    answer = client.ask("hello", temperature=0, max_tokens=5, params={"seed": 7})
    assert answer.text == "You said: hello"
    assert answer.session_id == client.session
    assert answer.usage is not None
    assert answer.timing is not None
    heard = fake_worker.heard[-1]
    assert (heard["temperature"], heard["maxTokens"], heard["params"]) == (0, 5, {"seed": 7})
    assert (heard["clientId"], heard["requestId"]) == (client.client_id, answer.request_id)
    assert 0 < heard["deadlineMs"] <= 20_000


def test_the_broker_may_drop_what_is_past_its_deadline(client: Client, fake_worker: FakeWorker) -> None:
    client.ask("hello")
    expiry, deadline = fake_worker.expiries[-1], fake_worker.heard[-1]["deadlineMs"] / 1000
    if client.is_v5:
        assert expiry is not None
        assert 0 <= expiry - deadline <= 1  # in whole seconds, and never before it
    else:
        assert expiry is None


def test_stream(client: Client) -> None:
    places: list[Accepted] = []
    with client.stream("one two three", on_accepted=places.append) as stream:
        words = [text(part) for part in stream]
    assert words == ["You", " said:", " one", " two", " three"]
    assert stream.result().text == "".join(words)
    assert [place.queue_position for place in places] == [0]


def test_a_lost_delta_costs_no_text(client: Client, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), delta("a "), delta("b ", copies=0), delta("c"), done("a b c")]
    with client.stream("x") as stream:
        words = [text(part) for part in stream]
    assert (words, stream.result().lost) == (["a ", "b c"], 1)


def test_reset_and_new_session(client: Client, fake_worker: FakeWorker) -> None:
    before = client.session
    client.reset()
    assert fake_worker.resets == [before]
    assert client.new_session() == "fresh-session" == client.session
    client.ask("hello")
    assert fake_worker.heard[-1]["sessionId"] == "fresh-session"


def test_cancel_ends_a_stream_with_the_workers_word(client: Client, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), delta("a"), WaitForCancel(), error("cancelled")]
    with client.stream("x") as stream:
        assert text(next(stream)) == "a"
        stream.cancel()
        with pytest.raises(RequestCancelledError) as caught:
            next(stream)
    assert caught.value.code == "cancelled"
    assert [(session, json.loads(payload)) for session, payload in fake_worker.cancels] == [
        (client.session, {"requestId": stream.request_id})
    ]


def test_a_stream_that_is_broken_off_is_cancelled_and_leaves_the_session_free(
    client: Client, fake_worker: FakeWorker
) -> None:
    fake_worker.script = lambda _: [accepted(), delta("a"), WaitForCancel(), error("cancelled")]
    with client.stream("x") as stream:
        next(stream)
    until(lambda: len(fake_worker.cancels) == 1)
    fake_worker.script = echo
    assert client.ask("next", when_busy="raise").text == "You said: next"


def test_a_timeout_is_cancelled_too(client: Client, fake_worker: FakeWorker) -> None:
    client.ask("to be subscribed")
    fake_worker.script = lambda _: [WaitForCancel()]
    with pytest.raises(RequestTimeoutError):
        client.ask("x", timeout=2, retries=0)
    until(lambda: len(fake_worker.cancels) == 1)


def test_an_interrupt_between_the_publish_and_the_note_of_it_is_cancelled_too(
    client: Client, fake_worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_worker.script = lambda _: [accepted(), WaitForCancel(), error("cancelled")]
    publish = Link.publish

    def publish_and_interrupt(link: Link, topic: str, *more: Any, **options: Any) -> bool:
        published = publish(link, topic, *more, **options)
        if "/user_input/" in topic:
            raise KeyboardInterrupt
        return published

    with monkeypatch.context() as patched:
        patched.setattr(Link, "publish", publish_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.ask("x")
    until(lambda: len(fake_worker.cancels) == 1)
    fake_worker.script = echo
    assert client.ask("next", when_busy="raise").text == "You said: next"


# --- one at a time, retries, typed errors ---


def test_one_request_in_flight_per_session(client: Client, fake_worker: FakeWorker) -> None:
    running: list[str] = []
    most: dict[str, int] = {}

    def script(request: Mapping[str, Any]) -> Iterator[Act]:
        session = request["sessionId"]
        running.append(session)
        most[session] = max(most.get(session, 0), running.count(session))
        yield Wait(0.02)
        running.remove(session)
        yield done("ok")

    fake_worker.script = script
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: client.ask("x", session=f"s{number % 3}").text, range(12)))
    assert answers == ["ok"] * 12
    assert most == {"s0": 1, "s1": 1, "s2": 1}


def test_a_busy_session_raises_where_that_is_asked_for(client: Client, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: streaming("a", "b")
    with client.stream("first") as stream:
        next(stream)
        with pytest.raises(SessionBusyError):
            client.ask("second", when_busy="raise")
        assert client.ask("elsewhere", session="another", when_busy="raise").text == "ab"
        assert "".join(text(part) for part in stream) == "b"


def _stream_or_answer(request: Mapping[str, Any]) -> list[Act]:
    return streaming("a", "b", "c") if request.get("stream") else [done("ok")]


def test_who_reads_a_stream_cannot_wait_for_its_session(client: Client, fake_worker: FakeWorker) -> None:
    """It would wait for itself, until the timeout. Other threads rightly wait."""
    fake_worker.script = _stream_or_answer
    with client.stream("first") as stream, ThreadPoolExecutor(1) as pool:
        next(stream)
        began = time.monotonic()
        for verb in (lambda: client.ask("second"), client.reset, lambda: list(client.stream("third"))):
            with pytest.raises(SessionBusyError, match="has to end, or be closed, first"):
                verb()
        assert client.ask("x", session="another").text == "ok"
        assert time.monotonic() - began < 15  # and not 20, the timeout
        elsewhere = pool.submit(client.ask, "from another thread")
        assert not wait([elsewhere], 0.3).done
        assert [text(part) for part in stream] == ["b", "c"]
        assert elsewhere.result(60).text == "ok"
    assert client.ask("afterwards").text == "ok"


def test_who_has_handed_a_stream_on_can_wait_for_its_session(client: Client, fake_worker: FakeWorker) -> None:
    fake_worker.script = _stream_or_answer
    took_over, go_on = threading.Event(), threading.Event()
    with client.stream("first") as stream, ThreadPoolExecutor(1) as pool:
        next(stream)

        def read_on() -> list[str]:
            words = [text(next(stream))]
            took_over.set()
            assert go_on.wait(60)
            return words + [text(part) for part in stream]

        reading = pool.submit(read_on)
        assert took_over.wait(60)
        threading.Timer(0.3, go_on.set).start()
        assert client.ask("second").text == "ok"
        assert reading.result(60) == ["b", "c"]


def test_a_retry_carries_the_same_request_id(client: Client, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [
        error("overloaded", retry_after_ms=50) if len(fake_worker.heard) == 1 else done("at last")
    ]
    answer = client.ask("x")
    assert (answer.text, answer.attempts) == ("at last", 2)
    assert {heard["requestId"] for heard in fake_worker.heard} == {answer.request_id}


def test_errors_carry_the_code_and_the_reply(client: Client, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [error("overloaded", retry_after_ms=2500)]
    with pytest.raises(UnavailableError) as caught:
        client.ask("x", retries=0)
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == ("overloaded", 503, 2.5)


def test_a_request_id_in_flight_is_not_taken_twice(client: Client, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: streaming("a", "b")
    with client.stream("x", request_id="mine") as stream:
        next(stream)
        with pytest.raises(InvalidRequestError, match="in flight"):
            client.ask("y", session="another", request_id="mine")


# --- other workers, other clients ---


def test_a_worker_that_answers_in_text(client: Client, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [SayText("plain words")]
    assert client.ask("x").text == "plain words"
    fake_worker.script = lambda _: [SayText("Server is overloaded. Please try again in a moment.")]
    with pytest.raises(UnavailableError):
        client.ask("x", retries=0)


def test_two_clients_of_one_session_do_not_hear_each_other(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    strays: list[object] = []
    settings = {"session": "shared"}
    with (
        connect(broker, fake_worker, **settings) as one,
        Client(broker.url, project=fake_worker.project, session="shared", on_stray=strays.append) as other,
    ):
        other.ask("to be subscribed")
        assert one.ask("mine").text == "You said: mine"
        other.ask("settled")
    assert strays == []


def test_repeats_and_late_words_are_strays(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [done("once", copies=3)]
    strays: list[str] = []
    with Client(
        broker.url, project=fake_worker.project, on_stray=lambda reply: strays.append(reply.request_id)
    ) as client:
        answer = client.ask("x")
        until(lambda: strays == [answer.request_id] * 2)


def test_what_is_retained_on_a_reply_topic_is_no_reply(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    topic = f"{fake_worker.project}/assistant_response/s/me"
    mosquitto_pub(broker, topic, "an old answer", "-r")
    with connect(broker, fake_worker, session="s", client_id="me") as client:
        assert client.ask("x").text == "You said: x"


@pytest.mark.parametrize("garbage", [b"\xff\xfe", b"[" * 10_000, b'{"v":2,"type":"done","requestId":"r"}', b"\0"])
def test_garbage_between_two_requests_hurts_nobody(client: Client, fake_worker: FakeWorker, garbage: bytes) -> None:
    client.ask("to be subscribed")
    fake_worker.publish(f"{fake_worker.project}/assistant_response/{client.session}/{client.client_id}", garbage)
    assert client.ask("x").text == "You said: x"


# --- the connection ---


def test_a_request_survives_a_broker_that_is_killed(own_broker: Mosquitto) -> None:
    """Without retries: what is lost with a connection is repeated because of that, not because of silence."""
    heard = threading.Event()

    def script(request: Mapping[str, Any]) -> Iterator[Act]:
        if request["message"] == "hello" and not heard.is_set():
            heard.set()  # and its answer is lost with the broker
        else:
            yield from echo(request)

    with (
        FakeWorker(own_broker.port, script) as worker,
        connect(own_broker, worker, timeout=60, first_timeout=2, retries=0) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client.ask("to know that the worker speaks JSON")
        asked = pool.submit(client.ask, "hello")
        assert heard.wait(60)
        own_broker.kill()
        own_broker.start()
        assert asked.result(50).text == "You said: hello"
        assert asked.result().request_id == worker.heard[-1]["requestId"]


def test_a_client_whose_id_is_taken_says_so_instead_of_fighting(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [WaitForCancel(20)]
    with connect(broker, fake_worker, client_id="twin", timeout=30) as first, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(first.ask, "x")
        until(lambda: fake_worker.heard)
        with connect(broker, fake_worker, client_id="twin"), pytest.raises(ConnectionLostError, match="twin"):
            asked.result(60)


def test_closing_ends_what_is_in_flight(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [WaitForCancel(20)]
    client = connect(broker, fake_worker).connect()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.ask, "x")
        until(lambda: fake_worker.heard)
        client.close()
        with pytest.raises(ConnectionLostError, match="closed"):
            asked.result(60)


def test_a_question_that_is_too_large_for_the_broker_is_refused_here() -> None:
    with Mosquitto("max_packet_size 4000") as small, FakeWorker(small.port) as worker:
        with connect(small, worker) as client:
            for ask in (client.ask, lambda text: list(client.stream(text))):
                with pytest.raises(InvalidRequestError) as caught:
                    ask("x" * 4000)
                assert caught.value.code == "message_too_large"
            assert client.ask("small").text == "You said: small"

        async def main() -> None:
            async with AsyncClient(small.url, project=worker.project) as client:
                with pytest.raises(InvalidRequestError, match="too large"):
                    await client.ask("x" * 4000)

        asyncio.run(main())
        assert [heard["message"] for heard in worker.heard] == ["small"]


def test_nobody_there() -> None:
    with pytest.raises(BrokerUnreachableError):
        Client("mqtt://127.0.0.1:1", connect_timeout=0.1).connect()


# --- the same with an event loop ---


def test_the_async_client_has_the_same_verbs(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    async def main() -> None:
        async with AsyncClient(broker.url, project=fake_worker.project, pacing=0) as client:
            assert (await client.ask("hello")).text == "You said: hello"
            async with client.stream("one two") as stream:
                assert [text(part) async for part in stream] == ["You", " said:", " one", " two"]
            await client.reset()
            assert await client.new_session() == "fresh-session"

    asyncio.run(main())
    assert len(fake_worker.resets) == 1


@pytest.mark.parametrize("wildcard", [False, True])
def test_many_sessions_at_once_over_one_connection(
    broker: Mosquitto, fake_worker: FakeWorker, *, wildcard: bool
) -> None:
    async def main() -> list[str]:
        async with AsyncClient(broker.url, project=fake_worker.project, pacing=0) as client:
            if wildcard:
                await client.listen_to_every_session()
            answers = await asyncio.gather(*(client.ask(f"{n}", session=f"s{n}") for n in range(100)))
            return [answer.text for answer in answers]

    assert asyncio.run(main()) == [f"You said: {n}" for n in range(100)]


def test_a_cancelled_task_cancels_its_request(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), WaitForCancel(), error("cancelled")]

    async def main() -> None:
        async with AsyncClient(broker.url, project=fake_worker.project, pacing=0) as client:
            task = asyncio.create_task(client.ask("x"))
            await asyncio.to_thread(until, lambda: fake_worker.heard)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            fake_worker.script = echo
            assert (await client.ask("next", when_busy="raise")).text == "You said: next"

    asyncio.run(main())
    until(lambda: len(fake_worker.cancels) == 1)


def test_an_async_session_is_busy_too(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    asked = threading.Event()

    def script(_: Mapping[str, Any]) -> Iterator[Act]:
        yield from (accepted(), delta("a"))
        assert asked.wait(60)
        yield done("ab")

    fake_worker.script = script

    async def main() -> None:
        async with AsyncClient(broker.url, project=fake_worker.project, pacing=0) as client:
            async with client.stream("first") as stream:
                await anext(stream)
                with pytest.raises(SessionBusyError):
                    await client.ask("second", when_busy="raise")
                waiting = asyncio.create_task(client.ask("third"))
                asked.set()
                assert [text(part) async for part in stream] == ["b"]
            assert (await waiting).text == "ab"

    asyncio.run(main())


def test_a_task_that_reads_a_stream_cannot_wait_for_its_session(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    fake_worker.script = _stream_or_answer

    async def main() -> None:
        async with AsyncClient(broker.url, project=fake_worker.project, pacing=0) as client:
            async with client.stream("first") as stream:
                await anext(stream)
                began = time.monotonic()
                with pytest.raises(SessionBusyError, match="has to end, or be closed, first"):
                    await client.ask("second")
                assert time.monotonic() - began < 15  # and not 20, the timeout
                waiting = asyncio.create_task(client.ask("from another task"))
                assert [text(part) async for part in stream] == ["b", "c"]
            assert (await waiting).text == "ok"

    asyncio.run(main())


def test_pacing_spaces_the_sends(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    with connect(broker, fake_worker, pacing=0.3) as client:
        began = time.monotonic()
        for _ in range(3):
            client.ask("x")
        # A lower bound, which no slow machine can break.
        assert time.monotonic() - began >= 0.6
