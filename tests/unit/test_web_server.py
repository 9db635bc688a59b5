"""The web server alone: where it listens, what it takes, and that who says nothing takes nobody's place."""

from __future__ import annotations

import gc
import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from inferbus_client.errors import SettingsError
from inferbus_client.web import server
from inferbus_client.web.listening import is_loopback, listening_at
from inferbus_client.web.server import MAX_HEAD, WebServer
from support.needs import needs_module
from support.waiting import PATIENCE, until

HOST = "127.0.0.1"


async def app(scope: Any, _receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def large(_scope: Any, _receive: Any, send: Any) -> None:
    """More than any socket's buffers hold."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(16_000_000)})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a server with little patience and few places."""
    needs_module("uvicorn")
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    served = WebServer(app, f"{HOST}:0", "web", max_connections=20)
    served.start()
    yield served.port
    served.stop(PATIENCE)


def asked(port: int, **headers: str) -> int:
    with closing(http.client.HTTPConnection(HOST, port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/", headers=headers)
        return connection.getresponse().status


def is_answered(port: int) -> bool:
    try:
        return asked(port) == 200
    except (OSError, http.client.HTTPException):
        return False


def ended(connection: socket.socket) -> bool:
    """Wait until the other side has closed a connection, in whichever way."""
    with suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return True


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("9100", "127.0.0.1:9100"),
        (9100, "127.0.0.1:9100"),
        (":9100", "127.0.0.1:9100"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("[::1]:9100", "[::1]:9100"),
        ("gpu.local:080", "gpu.local:80"),
    ],
)
def test_where_it_listens(text: object, at: str) -> None:
    assert listening_at(text) == at


@pytest.mark.parametrize(
    "text", ["", "localhost", "::1:9100", "host:65536", "host:-1", "host:٣", "host:9100/", "http://host:1/"]
)
def test_where_nobody_can(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|brackets"):
        listening_at(text)


def test_an_address_of_a_page_is_told_what_it_should_be() -> None:
    with pytest.raises(ValueError, match=r"^must be HOST:PORT, without http://$"):
        listening_at("http://localhost:8080")


def test_what_stays_on_this_machine() -> None:
    here = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"]
    assert [is_loopback(at) for at in (*here, "0.0.0.0:1", "[::]:1", "gpu.local:1")] == [True] * 4 + [False] * 3


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    needs_module("uvicorn")
    with socket.create_server((HOST, 0)) as taken:
        at = f"{HOST}:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=f"cannot listen for HTTP at {at}: Address already in use"):
            WebServer(app, at, "web")


def test_who_says_nothing_goes_and_makes_room(port: int) -> None:
    with ExitStack() as open_ones:
        for one in [open_ones.enter_context(socket.create_connection((HOST, port), PATIENCE)) for _ in range(20)]:
            assert ended(one)
        assert asked(port) == 200


def test_those_who_say_nothing_take_nobodys_place(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 600.0)
    with ExitStack() as open_ones:
        silent = [open_ones.enter_context(socket.create_connection((HOST, port), PATIENCE)) for _ in range(60)]
        assert asked(port) == 200
        assert all(ended(one) for one in silent[:40])


def test_a_request_that_never_ends_goes_too(port: int) -> None:
    with socket.create_connection((HOST, port), PATIENCE) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-")
        assert ended(slow)
    assert asked(port) == 200


def test_a_second_request_on_one_connection_has_its_time_as_well(port: int) -> None:
    with socket.create_connection((HOST, port), PATIENCE) as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-")
        assert ended(kept)
    assert asked(port) == 200


def test_those_who_have_asked_and_say_nothing_more_take_nobodys_place(port: int) -> None:
    with ExitStack() as open_ones:
        for _ in range(20):
            idle = open_ones.enter_context(socket.create_connection((HOST, port), PATIENCE))
            idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        assert asked(port) == 200


@pytest.mark.parametrize("times", [1, 100], ids=["one answer", "a hundred, all asked for at once"])
def test_who_takes_nothing_of_what_he_is_sent_goes(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    needs_module("uvicorn")
    monkeypatch.setattr(server, "READING", 0.5)
    monkeypatch.setattr(server, "_KEEP_ALIVE", 1)  # closing alone would wait for him
    served = WebServer(large, f"{HOST}:0", "web", max_connections=20)
    served.start()
    try:
        with ExitStack() as open_ones:
            for _ in range(20):
                deaf = open_ones.enter_context(socket.create_connection((HOST, served.port), PATIENCE))
                deaf.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * times)
                assert deaf.recv(1)
            until(lambda: is_answered(served.port))
    finally:
        served.stop(PATIENCE)


def test_headers_without_end_are_refused(port: int) -> None:
    with socket.create_connection((HOST, port), PATIENCE) as loud:
        loud.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2 * MAX_HEAD)
        assert ended(loud)
    assert asked(port) == 200


def test_it_is_gone_when_it_has_stopped() -> None:
    needs_module("uvicorn")
    served = WebServer(app, f"{HOST}:0", "web")
    served.start()
    port = served.port
    assert asked(port) == 200
    served.stop(PATIENCE)
    with pytest.raises(ConnectionRefusedError):
        asked(port)


def test_who_takes_nothing_is_hung_up_on_at_the_stop() -> None:
    needs_module("uvicorn")
    served = WebServer(large, f"{HOST}:0", "web")
    served.start()
    with socket.create_connection((HOST, served.port), PATIENCE) as deaf:
        deaf.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert deaf.recv(1)
        gc.collect()  # what is closed below is closed by the server, not because nobody knows it any more
        gc.disable()
        try:
            served.stop(PATIENCE)
            assert ended(deaf)
        finally:
            gc.enable()
