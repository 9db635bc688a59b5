"""What we override and use of paho's insides, by name: a release that moves one of them fails here, not on the wire."""

from __future__ import annotations

import inspect
from typing import Any, Final

import pytest
from paho.mqtt.client import Client, _WebsocketWrapper

from inferbus_client.mqtt.paho_client import PahoClient
from support.ear import Ear

#: With their parameters, after `self`.
OVERRIDDEN: Final = {
    "_create_socket": (),
    "_create_socket_connection": (),
    "_easy_log": ("level", "fmt", "args"),
    "_handle_pingresp": (),
    "_handle_pubackcomp": ("cmd",),
    "_handle_pubrel": (),
    "_messages_reconnect_reset_out": (),
    "_send_pingreq": (),
    "_sock_close": (),
    "_sock_recv": ("bufsize",),
    "_sock_send": ("buf",),
    "_ssl_wrap_socket": ("tcp_sock",),
}
CALLED: Final = {
    "_loop_rc_handle": ("rc",),
    "_packet_read": (),
    "_send_puback": ("mid",),
    "_update_inflight": (),
    "_send_pubcomp": ("mid",),
    "_send_pubrec": ("mid",),
}
READ: Final = (
    "_connect_timeout", "_host", "_last_bytes_received", "_manual_ack", "_max_inflight_messages",
    "_out_messages", "_sock", "_ssl_context", "_transport",
)  # fmt: skip


def parameters(method: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(method).parameters)[1:]


def test_nothing_else_is_overridden() -> None:
    private = {name for name in vars(PahoClient) if name.startswith("_") and not name.startswith("__")}
    assert private & vars(Client).keys() == OVERRIDDEN.keys()


@pytest.mark.parametrize("name", OVERRIDDEN | CALLED)
def test_paho_s_methods(name: str) -> None:
    assert parameters(vars(Client)[name]) == (OVERRIDDEN | CALLED)[name]


@pytest.mark.parametrize("name", READ)
def test_paho_s_attributes(name: str) -> None:
    ear = Ear()
    try:
        assert name in vars(ear.paho)
    finally:
        ear.close()


def test_paho_s_packet_under_way() -> None:
    ear = Ear()
    try:
        assert ear.paho._in_packet["command"] == 0
        ear.read(b"\xd0")  # the first half of a PINGRESP
        assert ear.paho._in_packet["command"] == 0xD0
        assert not ear.paho._in_packet["packet"]
    finally:
        ear.close()


def test_paho_s_websocket() -> None:
    assert parameters(_WebsocketWrapper._create_frame)[:2] == ("opcode", "data")
    source = inspect.getsource(_WebsocketWrapper.__init__)
    assert "self._socket =" in source
    assert "self._sendbuffer =" in source
