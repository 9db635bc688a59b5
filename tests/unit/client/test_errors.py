"""The tree of errors: nothing stands outside of it, and what a caller does wrong is told by a type of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import inferbus_client
from inferbus_client import (
    AsyncClient,
    AsyncStream,
    Client,
    Delta,
    InferbusError,
    InvalidRequestError,
    MisuseError,
    OptionTypeError,
    OptionValueError,
    Stream,
    StreamInUseError,
    errors,
)
from inferbus_client.exchange.transport import Transport
from inferbus_client.settings.client import ClientSettings
from support.streams import text


def drawn() -> Iterator[tuple[str, str]]:
    """Each class of the drawing with the one above it."""
    above = ["Exception"]
    for line in (errors.__doc__ or "").splitlines()[2:]:
        name = line.lstrip("│├└─ ").split(" ", 1)[0]
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        above[depth + 1 :] = [name]
        yield name, above[depth]


def test_the_drawing_is_the_tree() -> None:
    classes = (kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__)
    assert dict(drawn()) == {kind.__name__: kind.__bases__[0].__name__ for kind in classes}


def test_everything_in_it_is_an_inferbus_error() -> None:
    assert all(issubclass(getattr(errors, name), InferbusError) for name, _ in drawn())


def test_what_a_library_s_user_can_meet_is_public() -> None:
    workers_own = {
        "AlreadyServedError",
        "ConflictError",
        "DrainIgnoredError",
        "NoSharesError",
        "UnknownWorkerError",
        "WorkerLivesError",
    }
    assert {name for name, _ in drawn()} - workers_own == {n for n in inferbus_client.__all__ if n.endswith("Error")}


SETTINGS = ClientSettings(broker="mqtt://127.0.0.1:1")


@pytest.fixture(autouse=True)
def _connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that take themselves for connected."""
    monkeypatch.setattr(Transport, "open", lambda _self, _timeout: None)
    monkeypatch.setattr(Transport, "check", lambda _self: None)


def in_vain(stream: Stream) -> Any:
    for use in (stream.close, stream.__next__):
        with pytest.raises(StreamInUseError):
            use()
    yield Delta(text="x", request_id="r", session_id="s", seq=1)


async def in_vain_too(stream: AsyncStream) -> Any:
    for use in (stream.close, stream.__anext__):
        with pytest.raises(StreamInUseError):
            await use()
    yield Delta(text="x", request_id="r", session_id="s", seq=1)


def test_a_stream_that_has_not_ended_has_no_answer() -> None:
    with Client(SETTINGS) as client, client.stream("x") as stream, pytest.raises(MisuseError, match="no answer"):
        stream.result()


def test_an_asynchronous_stream_that_has_not_ended_has_no_answer() -> None:
    async def main() -> None:
        async with AsyncClient(SETTINGS) as client, client.stream("x") as stream:
            with pytest.raises(MisuseError, match="no answer"):
                stream.result()

    asyncio.run(main())


def test_a_stream_that_is_being_read_can_be_neither_read_nor_closed_elsewhere() -> None:
    with Client(SETTINGS) as client, client.stream("x") as stream:
        stream._deltas = in_vain(stream)
        assert text(next(stream)) == "x"


def test_an_asynchronous_stream_that_is_being_read_can_be_neither_read_nor_closed_elsewhere() -> None:
    async def main() -> None:
        async with AsyncClient(SETTINGS) as client, client.stream("x") as stream:
            stream._events = in_vain_too(stream)
            assert text(await anext(stream)) == "x"

    asyncio.run(main())


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_an_error_of_a_callback_s_own_stays_what_it_is(error: type[Exception]) -> None:
    def failing() -> Any:
        yield from ()
        raise error("mine")

    with Client(SETTINGS) as client, client.stream("x") as stream:
        stream._deltas = failing()
        with pytest.raises(error, match="mine") as caught:
            next(stream)
    assert not isinstance(caught.value, InferbusError)


@pytest.mark.parametrize(("option", "said"), [("temprature", 0), ("on_retry", "print")])
def test_an_option_that_there_is_not_is_a_misuse_and_a_type_error(option: str, said: Any) -> None:
    with Client(SETTINGS) as client, pytest.raises(OptionTypeError) as caught:
        client.ask("x", **{option: said})
    assert isinstance(caught.value, MisuseError)
    assert isinstance(caught.value, TypeError)
    assert caught.value.option == option


@pytest.mark.parametrize(("option", "said"), [("timeout", "soon"), ("session", 5)])
def test_a_value_that_there_is_not_is_a_misuse_and_a_value_error(option: str, said: Any) -> None:
    with Client(SETTINGS) as client, pytest.raises(OptionValueError) as caught:
        client.ask("x", **{option: said})
    assert isinstance(caught.value, MisuseError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.option == option


@pytest.mark.parametrize("said", [{"session": 5}, {"request_id": object()}])
def test_a_value_that_there_is_not_is_a_misuse_of_cancel_too(said: Any) -> None:
    with Client(SETTINGS) as client, pytest.raises(OptionValueError):
        client.cancel(**said)


def test_a_session_that_no_topic_can_have_is_told_to_whoever_cancels_it() -> None:
    with Client(SETTINGS) as client, pytest.raises(InvalidRequestError, match="sessionId"):
        client.cancel("a/+")
