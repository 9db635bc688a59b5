"""Opening a connection: the socket, TLS, CONNECT, and the broker's answer; and what each way to fail means.

Only a broker's own word is final. Whoever takes a connection and closes it may be a load balancer, or docker-proxy,
whose broker is not up yet; it may also be RabbitMQ, which closes without a word when it is spoken to in MQTT 5. So that
is tried again, in both versions in turn.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from paho.mqtt.reasoncodes import ReasonCode

from inferbus_client.errors import BrokerError, BrokerRefusedError, BrokerUnreachableError, ConnectionLostError
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.network_loop import NetworkLoop
from inferbus_client.mqtt.paho_client import PahoClient

_Value = TypeVar("_Value")

#: How often a wait looks whether to stop: a signal's handler that only takes a note breaks off no wait by itself.
_LOOK_EVERY: Final = 0.05
#: OpenSSL's words for an answer that is not TLS.
_PLAIN_ANSWERS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}
_FALLBACK_REASONS: Final = {"Unsupported protocol version", "Protocol error", "Malformed packet"}
#: What a broker says that will take us in later.
_NOT_YET: Final = {"Server unavailable", "Server busy", "Connection rate exceeded"}


class ProtocolRefusedError(BrokerRefusedError):
    """The broker does not speak the protocol version that was tried."""


class HungUpError(BrokerUnreachableError):
    """Connected, and closed without a CONNACK."""


class SilentError(BrokerUnreachableError):
    """Connected, and no CONNACK. amqtt does so with MQTT 5 and a Last Will."""


@dataclass(slots=True)
class BrokersWord:
    """What the broker says at the beginning of a connection (`refusal`) and at its end (`parting`)."""

    refusal: BrokerError | None = None
    parting: str = ""

    def refuse(self, url: BrokerUrl, reason: ReasonCode) -> None:
        """A CONNACK that says no."""
        name = str(reason)
        if name in _NOT_YET:
            self.refusal = BrokerUnreachableError(f"the broker at {url} takes nobody in yet: {name}")
        else:
            kind = ProtocolRefusedError if name in _FALLBACK_REASONS else BrokerRefusedError
            self.refusal = kind(f"the broker at {url} refused us: {name}")

    def part(self, reason: ReasonCode) -> None:
        """The first word counts: when the broker says why it disconnects, paho adds that the connection is gone."""
        self.parting = self.parting or str(reason)


def shake_hands(
    paho: PahoClient,
    url: BrokerUrl,
    open_socket: Callable[[], Any],
    *,
    loop: NetworkLoop,
    word: BrokersWord,
    patience: float,
    over: Callable[[], bool],
) -> None:
    """Open the connection and wait for the broker's CONNACK, for at most `patience` seconds.

    Args:
        paho: whose callbacks write down the broker's `word`.
        url: where the broker is, for the errors.
        open_socket: opens it and sends CONNECT.
        loop: to run meanwhile.
        word: a fresh one.
        patience: seconds.
        over: whether the connection is up, or nobody wants it any more.

    Raises:
        BrokerUnreachableError: nobody answers, or nobody who speaks MQTT, or not yet.
        BrokerRefusedError: the broker says no.
    """
    deadline = time.monotonic() + patience
    paho.set_connect_timeout(patience)
    with _in_our_types(url):
        open_socket()
    loop.run(paho, lambda: over() or time.monotonic() > deadline, serving=lambda: False)
    if over():
        return
    if word.refusal is not None:
        raise word.refusal
    if paho.tls_error is not None:
        with _in_our_types(url):
            raise paho.tls_error
    if time.monotonic() > deadline:
        raise SilentError(f"{url} accepts connections but does not speak MQTT")
    raise HungUpError(f"the broker at {url} closed the connection without an answer")


def wait_for(future: Future[_Value], timeout: float, stop: Callable[[], bool] | None) -> _Value:
    """What comes of `future`, unless `stop` says meanwhile that nobody wants it any more.

    Raises:
        TimeoutError: nothing, within `timeout` seconds.
        ConnectionLostError: told to stop.
    """
    deadline = time.monotonic() + timeout
    while True:
        left = max(deadline - time.monotonic(), 0.0)
        try:
            return future.result(left if stop is None else min(left, _LOOK_EVERY))
        except TimeoutError:
            if stop is not None and stop():
                raise ConnectionLostError("told to stop") from None
            if time.monotonic() >= deadline:
                raise


@contextmanager
def _in_our_types(url: BrokerUrl) -> Iterator[None]:
    try:
        yield
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        raise HungUpError(_no_tls(url)) from None
    except ssl.SSLError as error:
        if error.reason in _PLAIN_ANSWERS:
            raise BrokerRefusedError(f"the broker at {url} speaks no TLS there: say {_plain(url)}://") from None
        raise BrokerRefusedError(f"TLS with {url} failed: {_tls_words(error)}") from None
    except ConnectionResetError as error:
        words = _no_tls(url) if url.tls else f"cannot reach the broker at {url}: {error.strerror}"
        raise BrokerUnreachableError(words) from None
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BrokerUnreachableError(f"cannot reach the broker at {url}: {words}") from None


def _no_tls(url: BrokerUrl) -> str:
    """A plain broker does so, and a load balancer whose broker is away."""
    return f"the broker at {url} closed the connection in the middle of TLS; it may speak none there ({_plain(url)}://)"


def _plain(url: BrokerUrl) -> str:
    return url.scheme.removesuffix("s")


def _tls_words(error: ssl.SSLError) -> str:
    """What is wrong with the certificate, else OpenSSL's reason (`TLSV13_ALERT_CERTIFICATE_REQUIRED`) in words."""
    return getattr(error, "verify_message", "") or (error.reason or str(error)).lower().replace("_", " ")
