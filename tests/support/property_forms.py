"""MQTT 5 properties of a message in legal and illegal forms, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from support.mqtt_bytes import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    SUBSCRIPTION,
    TOPIC_ALIAS,
    packed,
    text,
    user,
)

#: Where replies go that the forms ask for.
HOME: Final = "props/assistant_response/s1"
BOM: Final = "\ufeff"
_LONGEST: Final = "x" * 65_535
#: What a stranger may write, and a broker passes on.
LEGAL: Final[dict[str, tuple[bytes, ...]]] = {
    "U+FEFF for a name": (user(BOM, "x"),),
    "U+FEFF for a value": (user("x", BOM),),
    "U+FEFF in the content type": (CONTENT_TYPE + text(f"text/{BOM}"),),
    "U+FEFF in the response topic": (RESPONSE_TOPIC + text(f"{HOME}/{BOM}"),),
    "U+FEFF, but not alone": (user(f"a{BOM}b", f"{BOM}é"), user("", ""), user("same", "1"), user("same", "2")),
    "nothing at all": (CONTENT_TYPE + text(""), CORRELATION_DATA + text(""), user("", "")),
    "everything": (
        PAYLOAD_FORMAT + b"\x01",
        EXPIRY + (60).to_bytes(4, "big"),
        CONTENT_TYPE + text("text/plain"),
        RESPONSE_TOPIC + text(HOME),
        CORRELATION_DATA + text(b"\0\xff\xfe"),
        user("a", "b"),
    ),
    "long ones": (CORRELATION_DATA + text(_LONGEST), user(_LONGEST, _LONGEST), CONTENT_TYPE + text(_LONGEST)),
}
#: What no right broker passes on, but MQTT allows, or only advises against.
ODD: Final[dict[str, tuple[bytes, ...]]] = {
    "control characters": (user("\x01", "\x7f\x85"), CONTENT_TYPE + text("\n")),
    "U+FFFF": (user("\uffff", "\U0010fffe"),),
    "subscriptions": (SUBSCRIPTION + b"\x01", SUBSCRIPTION + b"\xff\x7f"),
}
_NO_TEXT: Final = {"NUL": b"a\0b", "a surrogate": b"\xed\xa0\x80", "no UTF-8": b"\xff", "overlong UTF-8": b"\xc0\x80"}
_ONCE: Final = {
    "payload format": PAYLOAD_FORMAT + b"\x01",
    "expiry": EXPIRY + b"\x00\x00\x00\x3c",
    "content type": CONTENT_TYPE + text("x"),
    "response topic": RESPONSE_TOPIC + text(HOME),
    "correlation data": CORRELATION_DATA + text("x"),
}


def _illegal() -> Iterator[tuple[str, bytes]]:
    for name, wrong in _NO_TEXT.items():
        yield f"{name} in the content type", packed(CONTENT_TYPE + text(wrong))
        yield f"{name} in the response topic", packed(RESPONSE_TOPIC + text(wrong))
        yield f"{name} for a name", packed(user(wrong, "x"))
        yield f"{name} for a value", packed(user("x", wrong))
    for name, one in _ONCE.items():
        yield f"{name} twice", packed(one, one)
        yield f"{name} cut short", packed(one[:-1])
    yield "payload format 2", packed(PAYLOAD_FORMAT + b"\x02")
    yield "a topic alias", packed(TOPIC_ALIAS + b"\x00\x01")
    yield "subscription 0", packed(SUBSCRIPTION + b"\x00")
    yield "half a user property", packed(user("a", "b")[:-2])
    for other in (0x00, 0x04, 0x11, 0x15, 0x1F, 0x21, 0x27, 0x2A, 0x7F):
        yield f"property {other}", packed(bytes([other]), b"\x01\x00\x00\x00\x00")
    yield "more properties than bytes", b"\x7f"
    yield "a length without end", b"\xff\xff\xff\xff\xff\xff"


#: What is no packet at all; each must be dropped, and acknowledged.
ILLEGAL: Final = dict(_illegal())
ILLEGAL_TOPICS: Final[dict[str, bytes]] = {
    "empty": b"", "NUL": b"props/user_input/\0", "no UTF-8": b"props/user_input/\xff", "plus": b"props/user_input/+",
    "hash": b"props/#", "a surrogate": b"props/user_input/\xed\xa0\x80",
}  # fmt: skip
