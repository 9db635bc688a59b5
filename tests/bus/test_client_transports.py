"""The client over every way to a broker: plain, TLS, WebSockets, both; with and without MQTT 5, and passwords."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from inferbus_client import BrokerRefusedError, BrokerUnreachableError, Client
from support.certificates import Authority
from support.fake_worker import FakeWorker, accepted, done
from support.inferbus import inferbus
from support.mosquitto import Mosquitto, free_port
from support.needs import needs_program
from support.streams import text

WORDS = "open sesame"

# paho leaves the socket of a TLS handshake that failed to the garbage collector.
failed_handshakes = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class ManyDoors(Mosquitto):
    """A broker with more listeners beside its plain one, each with its own security."""

    def __init__(self, doors: Sequence[str]) -> None:
        super().__init__()
        self._doors = doors

    def _lines(self) -> list[str]:
        return ["per_listener_settings true", *super()._lines(), *self._doors]


@dataclass(frozen=True)
class Ways:
    """One broker with many doors, a worker behind it."""

    authority: Authority
    stranger: Authority
    client_certificate: tuple[Path, Path]
    ports: dict[str, int]
    worker: FakeWorker

    def url(self, door: str, host: str = "127.0.0.1") -> str:
        return f"{door}://{host}:{self.ports[door]}"


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    certificate, key = authority.issue("broker", "IP:127.0.0.1")
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(
        [needs_program("mosquitto_passwd"), "-b", str(passwords), "ann", WORDS], check=True, capture_output=True
    )
    ports = {door: free_port() for door in ("mqtts", "ws", "wss", "client-certificate", "password")}
    tls = (f"cafile {authority.certificate}", f"certfile {certificate}", f"keyfile {key}")
    doors = (
        *(f"listener {ports['mqtts']} 127.0.0.1", "allow_anonymous true", *tls),
        *(f"listener {ports['ws']} 127.0.0.1", "protocol websockets", "allow_anonymous true"),
        *(f"listener {ports['wss']} 127.0.0.1", "protocol websockets", "allow_anonymous true", *tls),
        *(f"listener {ports['client-certificate']} 127.0.0.1", "require_certificate true", *tls),
        "allow_anonymous true",
        *(f"listener {ports['password']} 127.0.0.1", "allow_anonymous false", f"password_file {passwords}"),
    )
    with ManyDoors(doors) as broker, FakeWorker(broker.port) as worker:
        yield Ways(authority, stranger, authority.issue("device", "DNS:device"), {"mqtt": broker.port, **ports}, worker)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("door", ["mqtt", "mqtts", "ws", "wss"])
def test_every_way_carries_requests_streams_and_long_answers(ways: Ways, door: str, version: str) -> None:
    long = "a long answer, " * 2_000  # Mosquitto 2.0 writes 4 kB in 100 ms to a WebSocket
    trusted = ways.authority.certificate if door in {"mqtts", "wss"} else None
    with Client(ways.url(door), cafile=trusted, mqtt_version=version, pacing=0) as client:
        assert client.ask("hello").text == "You said: hello"
        with client.stream("one two") as stream:
            assert "".join(text(part) for part in stream) == "You said: one two"
        ways.worker.script, before = (lambda _: [accepted(), done(long)]), ways.worker.script
        try:
            assert client.ask("x").text == long
        finally:
            ways.worker.script = before


@failed_handshakes
def test_a_broker_with_a_certificate_of_somebody_else_is_not_trusted(ways: Ways) -> None:
    for cafile in (ways.stranger.certificate, None):
        with pytest.raises(BrokerRefusedError, match="TLS"):
            Client(ways.url("mqtts"), cafile=cafile, connect_timeout=30).connect()


@failed_handshakes
def test_a_broker_of_another_name_is_not_trusted(ways: Ways) -> None:
    with pytest.raises(BrokerRefusedError, match="TLS"):
        Client(ways.url("mqtts", "localhost"), cafile=ways.authority.certificate, connect_timeout=30).connect()


def test_a_client_certificate(ways: Ways) -> None:
    certificate, key = ways.client_certificate
    url = f"mqtts://127.0.0.1:{ways.ports['client-certificate']}"
    trust = ("--broker", url, "--cafile", str(ways.authority.certificate))
    assert inferbus("ask", *trust, "--cert", str(certificate), "--key", str(key), "hi").stdout == "You said: hi\n"
    refused = inferbus("ask", *trust, "--connect-timeout", "500ms", "hi")
    assert refused.returncode == 3
    assert "Traceback" not in refused.stderr


def test_passwords(ways: Ways, tmp_path: Path) -> None:
    broker = ("--broker", f"mqtt://127.0.0.1:{ways.ports['password']}")
    file = tmp_path / "password"
    file.write_text(f"{WORDS}\n")
    assert inferbus("ask", *broker, "-u", "ann", "-P", WORDS, "hi").returncode == 0
    assert inferbus("ask", *broker, "-u", "ann", "--password-file", str(file), "hi").returncode == 0
    for wrong in (("-u", "ann", "-P", "wrong"), ()):
        run = inferbus("ask", *broker, *wrong, "hi")
        assert run.returncode == 3
        assert "refused" in run.stderr
        assert "wrong" not in run.stderr


@failed_handshakes
def test_tls_spoken_to_a_plain_port(ways: Ways) -> None:
    url = f"mqtts://127.0.0.1:{ways.ports['mqtt']}"
    with pytest.raises((BrokerRefusedError, BrokerUnreachableError)):
        Client(url, cafile=ways.authority.certificate, connect_timeout=0.5).connect()
