"""WebSocket frames reach MQTT whole and in order, wherever they are cut, and none is kept."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.mqtt.websocket import PiecewiseWebsocket

BINARY, MORE, CLOSE, PING, PONG = 0x2, 0x0, 0x8, 0x9, 0xA


def frame(payload: bytes, kind: int = BINARY) -> bytes:
    """As a server writes it."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65_536:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([0x80 | kind]) + length + payload


class PahoS:
    """What is asked of paho's WebSocket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sendbuffer = bytearray()

    def _create_frame(self, kind: int, payload: bytearray) -> bytes:
        return frame(bytes(payload), kind)


class Line:
    """A server's end and ours, not blocking."""

    def __init__(self) -> None:
        self.server, ours = socket.socketpair()
        ours.setblocking(False)
        self.server.setblocking(False)
        self.paho_s: Any = PahoS(ours)
        self.web = PiecewiseWebsocket(self.paho_s)

    def read(self, data: bytes, most: int = 4096) -> bytes:
        """What comes of `data`, until nothing more is there."""
        self.server.sendall(data)
        got = b""
        while True:
            try:
                piece = self.web.recv(most)
            except BlockingIOError:
                return got
            assert piece, "the connection has ended"
            assert len(piece) <= most
            got += piece

    def close(self) -> None:
        self.server.close()
        self.web._socket.close()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


@given(
    st.lists(st.integers(0, 300) | st.sampled_from([65_535, 65_536]), max_size=3),
    st.lists(st.integers(1, 20), max_size=20),
    st.integers(300, 5000),
)
def test_everything_in_order_wherever_it_is_cut(sizes: Sequence[int], cuts: Sequence[int], most: int) -> None:
    payloads = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    stream = b"".join(frame(payload) + frame(b"are you there?", PING) for payload in payloads)
    line = Line()
    try:
        got = b""
        for cut in [*cuts, *[70_000] * 3]:
            got += line.read(stream[:cut], most)
            stream = stream[cut:]
        assert got == b"".join(payloads)
    finally:
        line.close()


def test_what_has_arrived_is_handed_on_before_the_frame_is_whole(line: Line) -> None:
    assert line.read(frame(b"x" * 100_000)[:5000]) == b"x" * 4990
    assert line.read(b"y" * 10) == b"y" * 10


def test_fragments(line: Line) -> None:
    assert line.read(frame(b"one ") + frame(b"two", MORE)) == b"one two"


def test_a_ping_is_answered(line: Line) -> None:
    assert line.read(frame(b"hello", PING)) == b""
    assert line.server.recv(100) == frame(b"hello", PONG)


def test_a_pong_does_not_interrupt_what_is_being_written(line: Line) -> None:
    line.paho_s._sendbuffer.extend(b"the rest of a frame")
    line.read(frame(b"hello", PING))
    assert line.paho_s._sendbuffer == b"the rest of a frame" + frame(b"hello", PONG)


@pytest.mark.parametrize("end", [frame(b"", CLOSE), b"\x82\x85abcdefghi"], ids=["close", "masked"])
def test_the_end(line: Line, end: bytes) -> None:
    line.server.sendall(end)
    assert line.web.recv(100) == b""


def test_an_end_without_a_word(line: Line) -> None:
    line.server.sendall(b"\x82")
    line.server.close()
    assert line.web.recv(100) == b""
