"""Why a broker cannot be reached or refuses us, and what to do about it, in a sentence.

The link says what it met. Here we look further, with short connections of our own: whether the name is known, whether
anybody listens, what is spoken there, whom the certificate names. Nothing of ours is said on them, no login either.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

from paho.mqtt.enums import MQTTProtocolVersion

from inferbus_client.errors import BrokerError
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.options import LinkOptions, Tls

#: Seconds for each look.
_PATIENCE: Final = 3.0
_WRONG_LOGIN: Final = ("Not authorized", "Bad user name or password")
_CLIENT_ID: Final = "Client identifier not valid"
_VERSION: Final = "Unsupported protocol version"
_BUSY: Final = ("Server unavailable", "Server busy", "Connection rate exceeded", "Quota exceeded")

#: OpenSSL's verdicts on a certificate (openssl-verification-options).
_EXPIRED: Final = {9, 10}
_ANOTHER_NAME: Final = {62, 63, 64}


def remedy(options: LinkOptions, error: BrokerError) -> str:
    """What to do so that the broker takes us; empty where that is not known."""
    return (
        _about_refusal(options, error.reason)
        or _about_files(options)
        or _about_address(options.url)
        or (_about_tls(options, error.reason) if options.url.tls else _about_plain(options.url))
        or (_about_websockets(options.url) if options.url.websockets else _about_web(options.url))
    )


def _about_refusal(options: LinkOptions, reason: str) -> str:
    """The broker has answered, and says why not."""
    if any(words in reason for words in _WRONG_LOGIN):
        return _about_login(options.username or options.url.username, options.password)
    if _CLIENT_ID in reason:
        return (
            "It does not like our client id: give another with --client-id, or the one that it expects of this login."
        )
    if _VERSION in reason and options.protocol == MQTTProtocolVersion.MQTTv5:
        return "It speaks MQTT 3.1.1 alone: leave --mqtt-version at auto, or give 3.1.1."
    if any(words in reason for words in _BUSY):
        return "It takes nobody now: try again later, and look at its log and its limits."
    return ""


def _about_login(user: str | None, password: str | None) -> str:
    if user is None:
        return "It wants a login: give --username, and its password in INFERBUS_PASSWORD or --password-file."
    if password is None:
        return f"No password was given for {user}: set INFERBUS_PASSWORD or give --password-file."
    return f"Look at the user {user} and its password, and whether the broker knows this user."


# --- our own files ---


def _about_files(options: LinkOptions) -> str:
    if not options.url.tls:
        return ""
    tls = options.tls
    for flag, file in (("--cafile", tls.ca_file), ("--cert", tls.cert_file), ("--key", tls.key_file)):
        if file is not None and (reason := _unreadable(file)):
            return f"{flag} {file}: {reason}."
    return _unusable(tls)


def _unreadable(file: Path) -> str:
    try:
        with file.open("rb"):
            return ""
    except FileNotFoundError:
        return "there is no such file, look at the path"
    except OSError as error:
        return f"it cannot be read ({error.strerror}), look at the path and who may read it"


def _unusable(tls: Tls) -> str:
    try:
        Tls(tls.ca_file).context()
    except ssl.SSLError:
        return f"--cafile {tls.ca_file}: it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)."
    try:
        tls.context()
    except ssl.SSLError:
        return f"--cert {tls.cert_file} and --key {tls.key_file or 'are missing: it'} do not make a pair in PEM form."
    return ""


# --- the way there ---


def _about_address(url: BrokerUrl) -> str:
    try:
        _connect(url).close()
    except socket.gaierror:
        return f"Nobody here knows a host {url.host}: look at its spelling, and at this machine's name service."
    except ConnectionRefusedError:
        return (
            f"Nobody listens on port {url.port} of {url.host}: start the broker there, or give its port "
            "(mostly 1883 for mqtt://, 8883 for mqtts://)."
        )
    except OSError:
        return f"{url.host} port {url.port} does not answer: look at the address, the network, and firewalls between."
    return ""


def _about_tls(options: LinkOptions, reason: str) -> str:
    url = options.url
    if "certificate required" in reason:
        return "The broker wants to know who we are: give --cert and --key."
    if "unknown ca" in reason:
        return "The broker does not trust our certificate: give one (--cert, --key) of an authority that it trusts."
    if not _speaks_tls(url):
        plain = url.scheme.removesuffix("s")
        return (
            f"No TLS is spoken on port {url.port}: give the broker's TLS port, or {plain}:// where plain text will do."
        )
    try:
        with _connect(url) as plainly, options.tls.context().wrap_socket(plainly, server_hostname=url.host):
            return ""
    except ssl.SSLCertVerificationError as error:
        return _about_certificate(options, error.verify_code)
    except OSError:
        return ""


def _about_certificate(options: LinkOptions, code: int) -> str:
    if code in _EXPIRED:
        return "The broker's certificate is not valid at this time: renew it there, or set this machine's clock."
    if code in _ANOTHER_NAME:
        return (
            f"The broker's certificate is for another name than {options.url.host}: use the name that it was made for."
        )
    if options.tls.ca_file is None:
        return "This system trusts no authority that signed it: give the broker's own with --cafile."
    return f"It was not signed by what is in {options.tls.ca_file}: give the authority that signed it with --cafile."


def _about_plain(url: BrokerUrl) -> str:
    return f"TLS is spoken on port {url.port}: use {url.scheme}s:// instead." if _speaks_tls(url) else ""


def _about_websockets(url: BrokerUrl) -> str:
    answer = _asked_as_web(url)
    if not answer.startswith(b"HTTP/"):
        return (
            f"No WebSockets are spoken on port {url.port}: use {url.scheme.replace('ws', 'mqtt')}:// or another port."
        )
    status = answer.split(b" ", 2)[1].decode(errors="replace") if b" " in answer else "nothing"
    if status == "101":
        return ""
    return f"A web server answers there, and says {status} to {url.path}: give the broker's path, mostly /mqtt."


def _about_web(url: BrokerUrl) -> str:
    if _asked_as_web(url).startswith(b"HTTP/"):
        return f"A web server answers on port {url.port}: give the broker's MQTT port, or ws:// with its path."
    return ""


# --- what is spoken there ---


def _connect(url: BrokerUrl) -> socket.socket:
    return socket.create_connection((url.host, url.port), _PATIENCE)


def _unverified() -> ssl.SSLContext:
    """For finding out whether TLS is spoken at all; nothing is said over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _speaks_tls(url: BrokerUrl) -> bool:
    try:
        with _connect(url) as plainly, _unverified().wrap_socket(plainly, server_hostname=url.host):
            return True
    except ssl.SSLError as error:
        # An alert is spoken in TLS; a wrong version number, or an end in the middle, is something else.
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def _asked_as_web(url: BrokerUrl) -> bytes:
    """The beginning of the answer to a WebSocket's first words; empty where there is none."""
    words = (
        f"GET {url.path} HTTP/1.1",
        f"Host: {url.host}:{url.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",  # the sample of RFC 6455
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
        "\r\n",
    )
    with suppress(OSError), _connect(url) as plainly, _wrapped(plainly, url) as connection:
        connection.sendall("\r\n".join(words).encode("ascii", "replace"))
        return connection.recv(64)
    return b""


def _wrapped(plainly: socket.socket, url: BrokerUrl) -> socket.socket:
    return _unverified().wrap_socket(plainly, server_hostname=url.host) if url.tls else plainly
