"""Where the store is: every kind of URL, what is said of a slip in one, and that none of its secrets shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferbus_client.errors import SettingsError
from inferbus_client.settings.origins import in_force
from inferbus_worker.config_check import describe, remarks
from inferbus_worker.settings.store_url import StoreUrl
from inferbus_worker.settings.worker import Settings

_SECRET = "ge/h@e:im"  # noqa: S105 - no one's
_QUOTED = "ge%2Fh%40e%3Aim"


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://h?db=3", "redis://h:6379/3"),
        ("redis://[::1]:7", "redis://[::1]:7/0"),
        ("rediss://h?cafile=/etc/ca.pem", "rediss://h:6379/0?cafile=/etc/ca.pem"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("redis+sentinel://a,b:1/main", "redis+sentinel://a:26379,b:1/main"),
        ("redis+sentinel://a/main?db=4&sentinel_username=s", "redis+sentinel://a:26379/main?db=4&sentinel_username=s"),
        ("redis+cluster://a,b:7/", "redis+cluster://a:6379,b:7"),
        ("rediss+cluster://a", "rediss+cluster://a:6379"),
        (" redis://h ", "redis://h:6379/0"),
    ],
)
def test_a_url_is_read_and_printed_in_full(url: str, printed: str) -> None:
    assert str(StoreUrl.parse(url)) == printed
    assert StoreUrl.parse(printed) == StoreUrl.parse(url)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://ann:{_QUOTED}@h/0",
        f"unix://ann:{_QUOTED}@/run/redis.sock",
        f"redis+sentinel://ann:{_QUOTED}@a,b/main",
        f"rediss+cluster://ann:{_QUOTED}@a,b",
        f"redis+sentinel://ann@a,b/main?sentinel_password={_QUOTED}",
    ],
)
def test_a_secret_in_a_url_is_known_and_never_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERBUS_STATE", url)
    settings = Settings.load()
    assert settings.state is not None
    assert settings.state.username == "ann"
    secrets = [settings.state.password, settings.state.sentinel[1]]
    assert [one.get_secret_value() for one in secrets if one] == [_SECRET]
    shown = f"{settings!r} {settings.state} {in_force(settings)} {describe(settings, {}, ())} {settings.model_dump()}"
    assert _SECRET not in shown
    assert _QUOTED not in shown
    assert "**********" in str(settings.state)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "must start with redis://, rediss://"),
        ("h:6379", "must start with redis://, rediss://"),
        ("reddis://h", "or rediss+cluster://; is redis meant?"),
        ("redis+sentinal://h/m", "; is redis+sentinel meant?"),
        ("redis://", "names no host"),
        ("redis://h:port", "has no valid host and port where its only one stands"),
        ("redis://h:70000", "has a port that is no number from 1 to 65535"),
        ("redis://h/first", "has a database that is no number, such as 0"),
        ("redis://h/0?db=1", "must name its database once"),
        ("redis://h?cafile=/ca", "has a cafile, and is not encrypted; say rediss://"),
        ("rediss://h?cafiel=/ca", "cannot have cafiel behind its ?, only db, cafile, cert or key; is cafile meant?"),
        ("rediss://h?key=/k", "has a key and no cert"),
        ("redis://h?timeout=1", "cannot have timeout behind its ?, only db"),
        ("redis://a,b", "names several hosts: say redis+sentinel://HOST,HOST/NAME"),
        ("redis+sentinel://a,b", "must say what the Sentinels call their servers"),
        ("redis+sentinel://a,,b/m", "has no valid host and port where number 2 of 3 stands"),
        ("redis+cluster://a,b/3", "must end with the hosts: a Cluster has no databases by number"),
        ("unix://run/redis.sock", "must hold the whole path of the socket: unix:///run"),
        ("redis://ann:@h", "has a : and no password behind it"),
        ("redis://ann:gehe/im@h", "in a user or a password, write %40 for @"),
        ("redis://ann:gehe#im@h", "in a user or a password, write %40 for @"),
        ("redis://ann:gehe?im@h", "in a user or a password, write %40 for @"),
        ("redis://[::g]", "has no valid host and port"),
        ("redis://h%00", "has no valid host and port"),
    ],
)
def test_a_slip_is_named_and_the_url_is_not_repeated(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERBUS_STATE", url)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    words = str(caught.value)
    assert words.startswith("INFERBUS_STATE: ")
    assert said in words
    assert "gehe" not in words
    assert "im@h" not in words


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"group": "a/b"}, "group: "),
        ({"lease": "1s"}, "lease: must be at least 2"),
        ({"state": "redis://:x@h", "state_file": "/f"}, "state has a password, and state_file is there too: say one"),
        ({"state": "redis://h", "state_file": "/f", "state_password": "x"}, "state_password and state_file: say one"),
        ({"state_password": "x"}, "state_password is for --state, which names no store"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(given)
    assert said in str(caught.value)


def test_what_has_no_effect_without_a_store_is_said() -> None:
    said = remarks(Settings.load({"group": "g", "lease": "20s"}))
    assert said == ["--group has no effect without --state", "--lease has no effect without --state"]
    assert remarks(Settings.load({"group": "g", "lease": "20s", "state": "redis://h"})) == []
    assert remarks(Settings.load({"group": "g", "state_file": "/run/secrets/store"})) == []


def test_the_file_may_say_it_too(tmp_path: Path) -> None:
    file = tmp_path / "inferbus.yaml"
    file.write_text("state: redis+cluster://a,b\ngroup: hall\nremote_drain: true\n")
    settings = Settings.load(file=file)
    assert settings.is_shared
    assert (str(settings.state), settings.group) == ("redis+cluster://a:6379,b:6379", "hall")
