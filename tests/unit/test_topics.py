"""Topic strings: what comes from outside never becomes a topic that the broker would choke on (promises 26, 27)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract import topics
from inferbus_client.contract.topics import Address, Kind

HOME = "general/assistant_response/s1"

# Promise 26: wildcards, slashes, $, NUL, a lone surrogate, a non-character, 250 levels, 70 kB.
INJECTIONS = [
    "+",
    "#",
    "a+b",
    "a#",
    "/",
    "a/b",
    "$SYS",
    "$share",
    "\x00",
    "a\x00b",
    "\ud800",
    "\uffff",
    "\U0001ffff",
    "/".join("x" * 250),
    "x" * 70_000,
    "x" * 129,
    "",
    " ",
    "a b",
    "a\nb",
    "é",
]


@pytest.mark.parametrize("name", INJECTIONS)
def test_no_injection_is_a_session_or_a_project(name: str) -> None:
    assert not topics.is_session(name)
    assert not topics.is_project(name)


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "x" * 64])
def test_projects(name: str) -> None:
    assert topics.is_project(name)


@pytest.mark.parametrize("name", ["a", "A-b_c.9:z", "x" * 128])
def test_sessions(name: str) -> None:
    assert topics.is_session(name)


def test_a_colon_is_no_part_of_a_project() -> None:
    assert not topics.is_project("a:b")


@given(st.text(max_size=140))
def test_a_session_is_one_topic_level_of_plain_characters(name: str) -> None:
    if topics.is_session(name):
        assert topics.parse(topics.user_input("p", name)) == Address(Kind.USER_INPUT, "p", name)
        assert name.isascii()


@pytest.mark.parametrize(
    ("topic", "address"),
    [
        ("p/user_input", Address(Kind.USER_INPUT, "p")),
        ("p/user_input/s", Address(Kind.USER_INPUT, "p", "s")),
        ("p/session", Address(Kind.SESSION, "p")),
        ("p/cancel/s", Address(Kind.CANCEL, "p", "s")),
        ("p/user_input/a/b", None),
        ("p/session/response", None),
        ("p/cancel", None),
        ("p/assistant_response/s", None),
        ("user_input", None),
        ("", None),
    ],
)
def test_inbound_topics(topic: str, address: Address | None) -> None:
    assert topics.parse(topic) == address


def test_a_worker_hears_every_inbound_topic_and_none_of_its_own() -> None:
    heard = topics.inbound_filters("p")
    assert heard == ["p/user_input", "p/user_input/+", "p/session", "p/cancel/+"]


def test_fresh_sessions_are_legal_and_never_the_same() -> None:
    made = {topics.new_session_id() for _ in range(100)}
    assert len(made) == 100
    assert all(topics.is_session(name) and name.startswith("default-") for name in made)


@pytest.mark.parametrize("topic", [HOME, f"{HOME}/r1", f"{HOME}/a/b/c"])
def test_replies_may_go_home_and_below(topic: str) -> None:
    assert topics.is_reply_topic(topic, HOME)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "general/assistant_response",
        "general/assistant_response/s2",
        "general/assistant_response/s11",
        "general/assistant_response/s1x/r",
        "general/user_input",
        "general/user_input/s1",
        "general/session",
        "general/cancel/s1",
        "other/assistant_response/s1",
        "inferbus/workers/w/status",
        "$SYS/broker/uptime",
        "$share/g/general/assistant_response/s1",
        "a/#",
        f"{HOME}/#",
        f"{HOME}/+",
        f"{HOME}/a+b",
        f"{HOME}/\x00",
        f"{HOME}/\ud800",
        f"{HOME}/\uffff",
        f"{HOME}/\ufdd0",
        f"{HOME}/" + "/".join("x" * 250),
        f"{HOME}/" + "x" * 70_000,
    ],
)
def test_replies_may_go_nowhere_else(topic: str) -> None:
    assert not topics.is_reply_topic(topic, HOME)


def test_the_allowlist_opens_what_its_filters_match() -> None:
    allowed = ["devices/+/reply", "lab/#"]
    assert topics.is_reply_topic("devices/d1/reply", HOME, allowed)
    assert topics.is_reply_topic("lab/a/b", HOME, allowed)
    assert not topics.is_reply_topic("devices/d1/d2/reply", HOME, allowed)
    assert not topics.is_reply_topic("lab/+", HOME, allowed)
    assert not topics.is_reply_topic("$SYS/x", HOME, ["#"])


@given(st.text(max_size=60))
def test_whatever_is_publishable_is_a_topic_name(text: str) -> None:
    if topics.is_publishable(text):
        assert not set("+#\x00") & set(text)
        assert text.encode()
