"""Trial 34: a broker that cannot prove who it is gets no connection, and no word in plain text either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from inferbus_client.errors import BrokerError, BrokerRefusedError
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions, Tls
from support.mosquitto import HOST, Mosquitto
from support.pki import Authority, Pair
from support.waiting import until
from support.wiretap import TLS_HANDSHAKE, Wiretap

SCHEMES: Final = ("mqtts", "wss")
#: What Mosquitto logs once it has taken a client in.
ACCEPTED: Final = "New client connected"


class TlsBroker(Mosquitto):
    """A Mosquitto whose one listener speaks TLS.

    Args:
        shown: the certificate that it shows.
        *config: more lines for that listener.
        scheme: mqtts, or wss for a listener that speaks through WebSockets.
    """

    def __init__(self, shown: Pair, *config: str, scheme: str = "mqtts") -> None:
        super().__init__()
        self.shown = shown
        self._more = config
        self._scheme = scheme

    @property
    def accepted(self) -> int:
        return self.log.count(ACCEPTED)

    def _lines(self) -> list[str]:
        self._config = (f"listener {self.port} {HOST}", "allow_anonymous true", *self.shown.server_config, *self._more)
        if self._scheme == "wss":
            # Mosquitto 2.0 ends where WebSockets are all that it is to listen to; a socket file is something else.
            self._config += ("protocol websockets", f"listener 0 {self.folder / 'socket'}")
        return super()._lines()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@contextmanager
def link_to(port: int, tls: Tls, scheme: str = "mqtts", heard: list[Incoming] | None = None) -> Iterator[Link]:
    """A link that is not connected yet."""
    options = LinkOptions(BrokerUrl.parse(f"{scheme}://localhost:{port}"), "tls-trial", tls=tls, reconnect_max=1)
    link = Link(options, on_message=([] if heard is None else heard).append)
    try:
        yield link
    finally:
        link.close()


def refusal(broker: TlsBroker, tls: Tls, scheme: str = "mqtts") -> str:
    """Why a link does not connect, having said nothing that anybody could read."""
    with Wiretap(broker.port) as wire, link_to(wire.port, tls, scheme) as link:
        with pytest.raises(BrokerRefusedError) as refused:
            link.connect(5)
        assert set(wire.first_bytes) == {TLS_HANDSHAKE}
        assert not link.is_up
    assert broker.accepted == 0
    return refused.value.reason


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("show", "reason"),
    [
        (lambda trusted, _: trusted.server(expired=True), "certificate has expired"),
        (lambda trusted, _: trusted.server("broker.example.org"), "not valid for 'localhost'"),
        (lambda _, stranger: stranger.server(), "unable to get local issuer certificate"),
    ],
    ids=["expired", "wrong host", "wrong authority"],
)
def test_a_broker_that_cannot_prove_who_it_is(
    authority: Authority, stranger: Authority, show: Callable[[Authority, Authority], Pair], reason: str, scheme: str
) -> None:
    with TlsBroker(show(authority, stranger), scheme=scheme) as broker:
        assert reason in refusal(broker, Tls(authority.cert), scheme)


def test_without_an_authority_of_ours_the_systems_must_vouch(authority: Authority) -> None:
    with TlsBroker(authority.server()) as broker:
        assert "unable to get local issuer certificate" in refusal(broker, Tls())


def test_a_broker_without_tls_is_not_spoken_to_in_plain(own_broker: Mosquitto) -> None:
    with Wiretap(own_broker.port) as wire, link_to(wire.port, Tls()) as link:
        with pytest.raises(BrokerError, match=r"it may speak none there \(mqtt://\)"):
            link.connect(5)  # of a second a busy machine leaves too little for the last try: that one says "timed out"
        assert set(wire.first_bytes) == {TLS_HANDSHAKE}
    assert ACCEPTED not in own_broker.log


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_good_certificate_is_taken_and_messages_pass(authority: Authority, scheme: str) -> None:
    heard: list[Incoming] = []
    with (
        TlsBroker(authority.server(), scheme=scheme) as broker,
        Wiretap(broker.port) as wire,
        link_to(wire.port, Tls(authority.cert), scheme, heard) as link,
    ):
        link.connect(5)
        link.subscribe({"a": 1})
        link.publish("a", b"x" * 100_000, qos=1)
        until(lambda: heard)
        assert heard[0].payload == b"x" * 100_000
        assert wire.first_bytes == [TLS_HANDSHAKE]
        assert broker.accepted == 1


def test_a_broker_that_comes_back_as_another_is_not_trusted(authority: Authority, stranger: Authority) -> None:
    with (
        TlsBroker(authority.server()) as broker,
        Wiretap(broker.port) as wire,
        link_to(wire.port, Tls(authority.cert)) as link,
    ):
        link.connect(5)
        broker.stop()
        until(lambda: not link.is_up)
        accepted, tried = broker.accepted, len(wire.first_bytes)
        honest, broker.shown = broker.shown, stranger.server()
        broker.start()
        until(lambda: len(wire.first_bytes) >= tried + 3)
        assert not link.is_up
        assert broker.accepted == accepted
        broker.shown = honest
        broker.restart()
        assert link.wait_up(10)
        assert set(wire.first_bytes) == {TLS_HANDSHAKE}


# --- client certificates ---


@pytest.fixture(scope="module")
def strict_broker(authority: Authority) -> Iterator[TlsBroker]:
    """It wants to know who its clients are."""
    with TlsBroker(authority.server(), f"cafile {authority.cert}", "require_certificate true") as broker:
        yield broker


@pytest.mark.parametrize(
    ("show", "reason"),
    [(None, "certificate required"), (Authority.client, "unknown ca")],
    ids=["nobody's", "another's"],
)
def test_a_client_that_cannot_prove_who_it_is(
    strict_broker: TlsBroker,
    authority: Authority,
    stranger: Authority,
    show: Callable[[Authority], Pair] | None,
    reason: str,
) -> None:
    pair = None if show is None else show(stranger)
    tls = Tls(authority.cert) if pair is None else Tls(authority.cert, pair.cert, pair.key)
    before = strict_broker.accepted
    with Wiretap(strict_broker.port) as wire, link_to(wire.port, tls) as link:
        with pytest.raises(BrokerRefusedError, match=reason):
            link.connect(5)
        assert set(wire.first_bytes) == {TLS_HANDSHAKE}
    assert strict_broker.accepted == before


def test_a_client_certificate_is_taken(strict_broker: TlsBroker, authority: Authority) -> None:
    own = authority.client()
    with link_to(strict_broker.port, Tls(authority.cert, own.cert, own.key)) as link:
        link.connect(5)
        link.subscribe({"a": 1})


# --- files that are no certificates ---


@pytest.mark.parametrize("wrong", ["missing", "no PEM", "another key"])
def test_files_that_cannot_be_used_are_named(
    strict_broker: TlsBroker, authority: Authority, tmp_path: Path, wrong: str
) -> None:
    own, other = authority.client(), authority.client()
    scrap = tmp_path / "scrap.crt"
    scrap.write_text("scrap")
    tls = {
        "missing": Tls(tmp_path / "none.crt"),
        "no PEM": Tls(scrap),
        "another key": Tls(authority.cert, own.cert, other.key),
    }[wrong]
    before = strict_broker.accepted
    with link_to(strict_broker.port, tls) as link, pytest.raises(BrokerRefusedError) as refused:
        link.connect(5)
    assert refused.value.reason
    assert strict_broker.accepted == before
