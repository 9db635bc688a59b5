"""What we override and use of paho's insides, by name: a release that moves one of them fails here, not on the wire."""

from __future__ import annotations

import ast
import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from paho.mqtt.client import Client, _WebsocketWrapper
from paho.mqtt.enums import CallbackAPIVersion

from inferbus_client.mqtt.paho_client import PahoClient
from support.ear import Ear

PROJECT: Final = Path(__file__).parents[3] / "client" / "pyproject.toml"

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
    "loop_read": ("max_packets",),
    "reconnect": (),
    "want_write": (),
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
    "_connect_timeout", "_host", "_in_packet", "_last_bytes_received", "_manual_ack", "_max_inflight_messages",
    "_out_messages", "_port", "_sock", "_ssl_context", "_transport",
)  # fmt: skip


def parameters(method: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(method).parameters)[1:]


def ours() -> list[type]:
    return [kind for kind in PahoClient.__mro__ if kind.__module__.startswith("inferbus_client.")]


def test_only_the_minor_version_that_these_tests_have_seen_is_let_in() -> None:
    needs = map(Requirement, tomllib.loads(PROJECT.read_text())["project"]["dependencies"])
    (paho,) = (need for need in needs if need.name == "paho-mqtt")
    seen = Version(version("paho-mqtt"))
    assert seen in paho.specifier
    assert not any(f"{seen.major}.{minor}.0" in paho.specifier for minor in (seen.minor - 1, seen.minor + 1))
    assert f"{seen.major + 1}.0.0" not in paho.specifier


def test_nothing_else_is_overridden() -> None:
    defined = {name for kind in ours() for name in vars(kind) if not name.startswith("__")}
    assert defined & vars(Client).keys() == OVERRIDDEN.keys()


def test_nothing_else_of_its_insides_is_used() -> None:
    trees = [ast.parse(inspect.getsource(kind)) for kind in ours()]
    named = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    of_paho = {*vars(Client), *vars(Client(CallbackAPIVersion.VERSION2))}
    inside = {name for name in named & of_paho if name.startswith("_") and name != "__init__"}
    assert inside - OVERRIDDEN.keys() == {*CALLED, *READ}


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
