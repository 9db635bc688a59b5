"""Broker URLs: what is read is what is written, whatever a name holds; and no password gets through."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract.topics import is_mqtt_string
from inferbus_client.mqtt.broker_url import BrokerUrl

USERS = st.text(min_size=1).filter(is_mqtt_string)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
HOSTS = NAMES | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
PORTS = st.integers(1, 65535)


@given(scheme=st.sampled_from(["mqtt", "mqtts"]), host=HOSTS, port=PORTS, user=st.none() | USERS)
def test_what_is_written_is_read_again(scheme: str, host: str, port: int, user: str | None) -> None:
    url = BrokerUrl(scheme, host, port, user)
    assert BrokerUrl.parse(str(url)) == url
    assert str(url).isascii() or not host.isascii()


@given(host=HOSTS, port=PORTS, user=st.none() | USERS, path=st.from_regex(r"/[A-Za-z0-9%._~/-]{1,20}", fullmatch=True))
def test_a_web_sockets_path_too(host: str, port: int, user: str | None, path: str) -> None:
    url = BrokerUrl("wss", host, port, user, path)
    assert BrokerUrl.parse(str(url)) == url


@given(st.text() | st.builds("{}://{}".format, st.sampled_from(["mqtt", "ws"]), st.text()))
def test_whatever_is_accepted_means_the_same_when_it_is_read_again(text: str) -> None:
    with suppress(ValueError):
        url = BrokerUrl.parse(text)
        assert BrokerUrl.parse(str(url)) == url


@given(user=USERS, host=NAMES)
def test_a_user_is_unquoted_once(user: str, host: str) -> None:
    url = BrokerUrl.parse(f"mqtt://{quote(user, safe='')}@{host}")
    assert (url.username, url.host) == (user, host)


@pytest.mark.parametrize("user", ["dom/user", "a%2Fb", "50%", "a@b", "a:b", "ünï", "a#b?c"])
def test_users_that_look_like_something_else(user: str) -> None:
    url = BrokerUrl.parse(f"mqtt://{quote(user, safe='')}@broker")
    again = BrokerUrl.parse(str(BrokerUrl.parse(str(url))))
    assert (again.username, again.host) == (user, "broker")


@given(word=st.text("abcdefghijk/?#:@%1234567890 ", min_size=4, max_size=20))
def test_no_password_gets_through_or_is_repeated(word: str) -> None:
    with pytest.raises(ValueError, match="broker URL") as caught:
        BrokerUrl.parse(f"mqtt://ann:{word}@broker")
    assert word not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "broker",
        "http://broker",
        "mqtt://",
        "mqtt://broker:0",
        "mqtt://broker:70000",
        "mqtt://broker:x",
        "mqtt://bro ker",
        "mqtt://bro%2Fker",
        "mqtt://broker/topic",
        "mqtt://broker?a=b",
        "ws://broker/mqtt?token=secret",
        "ws://broker/mqtt#part",
        "ws://broker/a b",
        "mqtt://a%00b@broker",
        "mqtt://a%ffb@broker",
        "mqtt://user:@broker",
        "mqtt://[::1",
        "mqtt://[v1.x]",
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(url: str) -> None:
    with pytest.raises(ValueError, match=r"^the broker URL"):
        BrokerUrl.parse(url)
