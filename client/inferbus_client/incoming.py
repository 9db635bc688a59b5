"""paho's message as ours."""

from __future__ import annotations

from typing import Final

from paho.mqtt.client import MQTTMessage

from inferbus_client.link_options import Incoming

# What every `Properties` of paho's holds; one that holds nothing else is empty.
_NO_PROPERTIES: Final = frozenset({"packetType", "types", "names", "properties"})


def incoming(message: MQTTMessage) -> Incoming:
    """The parts of a message that anybody here asks for."""
    properties, payload = message.properties, bytes(message.payload)
    if properties is None or not vars(properties).keys() - _NO_PROPERTIES:
        return Incoming(message.topic, payload, message.qos, message.retain, message.dup, message.mid)
    return Incoming(
        topic=message.topic,
        payload=payload,
        qos=message.qos,
        retain=message.retain,
        dup=message.dup,
        ack_id=message.mid,
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation_data=getattr(properties, "CorrelationData", None),
        expiry=getattr(properties, "MessageExpiryInterval", None),
        user_properties=tuple(getattr(properties, "UserProperty", ())),
    )
