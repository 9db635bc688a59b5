"""paho's client, made, connected and disconnected as a link's options say."""

from __future__ import annotations

from typing import Any

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_client.errors import BrokerRefusedError
from inferbus_client.mqtt.options import LinkOptions, Will
from inferbus_client.mqtt.paho_client import PahoClient, paho_log


def build_paho(options: LinkOptions, protocol: MQTTProtocolVersion, will: Will | None) -> PahoClient:
    """A client that is set up and not yet connected."""
    url = options.url
    extra: dict[str, Any] = {}
    if protocol != MQTTProtocolVersion.MQTTv5:
        extra["clean_session"] = not options.persistent
    paho = PahoClient(
        CallbackAPIVersion.VERSION2,
        client_id=options.client_id,
        protocol=protocol,
        transport="websockets" if url.websockets else "tcp",
        manual_ack=options.manual_ack,
        max_incoming_bytes=options.max_incoming_bytes,
        reconnect_on_failure=False,
        **extra,
    )
    if url.websockets:
        paho.ws_set_options(path=url.path)
    username = options.username or url.username
    if username is not None:
        paho.username_pw_set(username, options.password)
    if will is not None:
        paho.will_set(will.topic, will.payload, will.qos, retain=True)
    if options.own_window:
        paho.max_inflight_messages_set(0)
    paho.suppress_exceptions = True
    paho.enable_logger(paho_log)
    return paho


def open_connection(paho: PahoClient, options: LinkOptions) -> None:
    """Open the socket and send CONNECT.

    Raises:
        OSError: as the system says it; `ssl.SSLError` among them.
        BrokerRefusedError: a TLS file cannot be read.
    """
    url = options.url
    if url.tls:
        try:
            paho.tls_set_context(options.tls.context())
        except FileNotFoundError:
            raise BrokerRefusedError(f"there is no file {options.tls.missing}") from None
    if paho.protocol != MQTTProtocolVersion.MQTTv5:
        paho.connect(url.host, url.port, options.keepalive)
        return
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if options.persistent:
        properties.SessionExpiryInterval = options.session_expiry
    if options.receive_maximum is not None:
        properties.ReceiveMaximum = options.receive_maximum
    paho.connect(url.host, url.port, options.keepalive, clean_start=not options.persistent, properties=properties)


def say_goodbye(paho: PahoClient, *, forget: bool) -> None:
    """Disconnect in order; `forget` asks the broker to keep nothing for us, which it can be told with MQTT 5 alone."""
    if not forget or not paho.is_v5:
        paho.disconnect()
        return
    properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    paho.disconnect(properties=properties)
