"""How a worker takes requests in, as its link and the broker are told; and that it wants none any more."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from paho.mqtt.enums import MQTTProtocolVersion

from inferbus_client.errors import BrokerError
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.options import LinkOptions
from inferbus_worker.settings.worker import Settings

log = logging.getLogger("inferbus.bus")


def receive_maximum(settings: Settings) -> int:
    """What can be held unacknowledged: the queue's size, and what runs for certain (MQTT 5.0, section 3.1.2.11.3)."""
    return min(settings.queue_size + max(settings.workers, settings.max_workers or 0), 65535)


def delivery(settings: Settings) -> dict[str, Any]:
    """How requests are taken in and replies sent: how much of each, and what acknowledging after the reply takes."""
    # What admission reads of a request that is too large, and once its limit for all that a packet holds besides.
    largest = settings.readable_bytes + settings.largest_request_bytes
    always = {"own_window": True, "max_incoming_bytes": largest}
    if settings.ack == "on-receipt":
        return always
    held = receive_maximum(settings)
    return {**always, "manual_ack": True, "session_expiry": int(settings.session_expiry), "receive_maximum": held}


def forget_session(options: LinkOptions, url: BrokerUrl, timeout: float) -> None:
    """Have a broker that speaks MQTT 3.1.1 forget us: by one more connection, which asks for nothing to be kept."""
    if not options.persistent:
        return
    options = replace(options, url=url, others=(), session_expiry=0, protocol=MQTTProtocolVersion.MQTTv311)
    link = Link(options, on_message=lambda _message: None)
    try:
        link.connect(max(timeout, 0.0))
    except BrokerError as error:
        log.warning("the broker may go on to keep messages for this worker: %s", error.reason)
    finally:
        link.close(0.1)
