"""Every topic string of the contract: build, parse, validate.

Names that come from outside are checked here before they become part of a topic, so that no wildcard, `$`, NUL or
lone surrogate ever reaches the broker (the UTF-8 and topic rules are MQTT 5.0, sections 1.5.4 and 4.7).

A *scope* is what stands before the contract's own levels: the project, or `{project}/users/{user}` where the broker's
access rules bind the user in the topic to the login.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

from paho.mqtt.client import topic_matches_sub

#: What the names of projects and workers match.
NAME: Final = "[A-Za-z0-9_.-]{1,64}"
MAX_WORKER: Final = 64

_NAME = re.compile(NAME)
_SESSION = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_USER = re.compile(r"[A-Za-z0-9_.@:-]{1,128}")
# Control characters, surrogates, and the "non-characters": U+FDD0 to U+FDEF, and the two last of every plane.
_NOT_IN_MQTT = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
_MAX_REPLY_TOPIC_BYTES = 1024
_MAX_REPLY_TOPIC_LEVELS = 32


class Kind(Enum):
    """What a message on an inbound topic asks for."""

    USER_INPUT = "user_input"
    SESSION = "session"
    CANCEL = "cancel"


class Address(NamedTuple):
    """A parsed inbound topic. `session` and `user` are None on the topics that name none."""

    kind: Kind
    project: str
    session: str | None = None
    user: str | None = None

    @property
    def scope(self) -> str:
        return scope(self.project, self.user)


def is_project(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def is_worker(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def is_session(name: str) -> bool:
    return _SESSION.fullmatch(name) is not None


def is_user(name: str) -> bool:
    return _USER.fullmatch(name) is not None


def scope(project: str, user: str | None = None) -> str:
    """What a project's topics begin with, or those of one of its users."""
    return project if user is None else f"{project}/users/{user}"


def new_session_id() -> str:
    """A fresh session id for a requester that named none; unguessable, since it is a bearer secret."""
    return f"default-{uuid.uuid4().hex}"


def user_input(scope: str, session: str | None = None) -> str:
    return f"{scope}/user_input" if session is None else f"{scope}/user_input/{session}"


def assistant_response(scope: str, session: str) -> str:
    return f"{scope}/assistant_response/{session}"


def cancel(scope: str, session: str) -> str:
    return f"{scope}/cancel/{session}"


def session_request(scope: str) -> str:
    return f"{scope}/session"


def session_response(scope: str) -> str:
    return f"{scope}/session/response"


def presence(worker: str) -> str:
    return f"inferbus/workers/{worker}/status"


def stats(worker: str) -> str:
    return f"inferbus/workers/{worker}/stats"


def stats_request(worker: str) -> str:
    """Where anything that is published asks a worker for its stats."""
    return f"inferbus/workers/{worker}/stats/get"


def probe(worker: str) -> str:
    """Where a worker of a group sends itself a message, to see if the broker deals shared subscriptions."""
    return f"inferbus/workers/{worker}/probe"


def drain(worker: str) -> str:
    """Where anything that is published asks a worker to finish what it has and leave."""
    return f"inferbus/workers/{worker}/drain"


def shared(group: str, topic_filter: str) -> str:
    """The filter by which the broker deals messages out to the members of a group (MQTT 5.0, section 4.8.2)."""
    return f"$share/{group}/{topic_filter}"


def is_announcement(topic: str) -> bool:
    """Whether a topic is one of a worker's own, on which no request comes."""
    return topic.startswith("inferbus/workers/")


def dealt_filters(project: str, *, users: bool = False) -> list[str]:
    """The filters of one project's requests, or of all of its users': in a group each is for one worker."""
    begin = scope(project, "+" if users else None)
    return [
        f"{begin}/{Kind.USER_INPUT.value}",
        f"{begin}/{Kind.USER_INPUT.value}/+",
        f"{begin}/{Kind.SESSION.value}",
    ]


def cancel_filter(project: str, *, users: bool = False) -> str:
    """The filter of one project's cancels, or of all of its users': in a group each is for every worker."""
    return f"{scope(project, '+' if users else None)}/{Kind.CANCEL.value}/+"


def inbound_filters(project: str, *, users: bool = False) -> list[str]:
    """The filters a worker subscribes to for one project, or for all of its users."""
    return [*dealt_filters(project, users=users), cancel_filter(project, users=users)]


def parse(topic: str) -> Address | None:
    """The address an inbound topic stands for; None where it is not one of the contract's.

    A session that is not allowed parses all the same, so that the caller can say what is wrong with it.
    """
    project, *rest = topic.split("/")
    user = None
    if len(rest) > 2 and rest[0] == "users":  # noqa: PLR2004 - "users", the user, and at least one level more
        user, rest = rest[1], rest[2:]
    match rest:
        case ["user_input"]:
            return Address(Kind.USER_INPUT, project, None, user)
        case ["user_input", session]:
            return Address(Kind.USER_INPUT, project, session, user)
        case ["session"]:
            return Address(Kind.SESSION, project, None, user)
        case ["cancel", session]:
            return Address(Kind.CANCEL, project, session, user)
        case _:
            return None


def is_mqtt_string(text: str) -> bool:
    """Whether `text` may stand in a topic or a property (MQTT 5.0, section 1.5.4).

    Mosquitto closes the connection of whoever publishes another: a requester's word must never do that to the worker.
    """
    return _NOT_IN_MQTT.search(text) is None


def is_read_by_all(text: str) -> bool:
    """Whether every reader takes `text` in a property: paho closes its connection on U+FEFF, which is legal there."""
    return is_mqtt_string(text) and "\ufeff" not in text


def is_publishable(topic: str) -> bool:
    """Whether a topic that a requester named could be published to at all."""
    return (
        bool(topic)
        and not topic.startswith("$")
        and "+" not in topic
        and "#" not in topic
        and is_mqtt_string(topic)
        and topic.count("/") < _MAX_REPLY_TOPIC_LEVELS
        and len(topic.encode()) <= _MAX_REPLY_TOPIC_BYTES
    )


def is_filter(text: str) -> bool:
    """Whether `text` is a topic filter (MQTT 5.0, section 4.7.1)."""
    *before, last = text.split("/")
    wild = [level for level in before if level != "+" and ("+" in level or "#" in level)]
    return bool(text) and is_mqtt_string(text) and not wild and (last in {"+", "#"} or not {"+", "#"} & set(last))


def is_reply_topic(topic: str, home: str, allowlist: Iterable[str] = ()) -> bool:
    """Whether replies may go to `topic`: at or below `home`, or matching a filter of the allowlist."""
    if not is_publishable(topic):
        return False
    if topic == home or topic.startswith(home + "/"):
        return True
    return any(topic_matches_sub(pattern, topic) for pattern in allowlist)
