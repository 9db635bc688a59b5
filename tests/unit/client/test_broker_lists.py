"""Several brokers in one setting: how they are written, and which do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferbus_client.errors import SettingsError
from inferbus_client.mqtt.broker_url import parse_urls
from inferbus_client.settings.client import ClientSettings


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("mqtt://a", ["mqtt://a:1883"]),
        ("mqtt://a,mqtt://b:1884", ["mqtt://a:1883", "mqtt://b:1884"]),
        (" mqtt://a , mqtt://[::1] ", ["mqtt://a:1883", "mqtt://[::1]:1883"]),
        ("wss://a/x,y,wss://b", ["wss://a:443/x,y", "wss://b:443/mqtt"]),
        ("mqtt://me@a,mqtt://me@b", ["mqtt://me@a:1883", "mqtt://me@b:1883"]),
    ],
)
def test_urls_are_told_apart_by_commas(written: str, read: list[str]) -> None:
    urls = parse_urls(written)
    assert list(map(str, urls)) == read
    assert parse_urls(",".join(map(str, urls))) == urls


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("mqtt://a,http://b", "must start with mqtt://, mqtts://, ws:// or wss:// (number 2 of 2)"),
        ("mqtt://a,mqtt://u:hunter2@b", "must not hold a password"),
        ("mqtt://a,mqtts://b", "reached in one way, not by mqtt and mqtts"),
        ("mqtt://a,mqtt://me@b", "the same user, or none"),
        ("mqtt://a,mqtt://a:1883", "name one twice"),
        ("mqtt://a,", "host"),
        ("mqtt://a,b", "host"),
        ("", "must start with"),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(written: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        ClientSettings.load({"broker": written})
    assert complaint in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_repeated_flag_and_a_list_in_a_file_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "inferbus.yaml"
    file.write_text("broker: [mqtt://a, mqtt://b]\n")
    both = "mqtt://a:1883,mqtt://b:1883"
    assert ClientSettings.load({}, file).broker == both
    assert ClientSettings.load({"broker": ("mqtt://a", "mqtt://b")}).broker == both
    monkeypatch.setenv("MQTT_PORT", "1999")
    assert ClientSettings.load({}, file).broker == both
    monkeypatch.setenv("INFERBUS_BROKER", "mqtt://a, mqtt://b")
    assert ClientSettings.load({}).broker == both


def test_tls_files_and_the_user_are_those_of_all() -> None:
    with pytest.raises(SettingsError, match="is not encrypted"):
        ClientSettings.load({"broker": "mqtt://a,mqtt://b", "cafile": "ca.crt"})
    settings = ClientSettings.load({"broker": "mqtt://me@a,mqtt://me@b", "password": "x", "identity": "topic"})
    assert settings.scope == "general/users/me"
    assert [url.host for url in settings.link_options("id").urls] == ["a", "b"]
