"""Credentials come from the strongest source that says anything of them, and go nowhere in clear by mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferbus_client.errors import SettingsError
from inferbus_client.mqtt.options import LinkOptions
from inferbus_client.settings.client import ClientSettings
from inferbus_worker.settings.worker import Settings

TLS = "mqtts://broker"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MQTT_{name}", raising=False)
    for name in ("BROKER", "USERNAME", "PASSWORD", "PASSWORD_FILE", "CAFILE"):
        monkeypatch.delenv(f"INFERBUS_{name}", raising=False)


@pytest.fixture(params=[ClientSettings, Settings])
def settings(request: pytest.FixtureRequest) -> type[ClientSettings | Settings]:
    kind: type[ClientSettings | Settings] = request.param
    return kind


def options(settings: type[ClientSettings | Settings], flags: dict[str, Any], file: Path | None = None) -> LinkOptions:
    return settings.load(flags, file).link_options("me")


def user(link: LinkOptions) -> str | None:
    return link.username or link.url.username


def word(link: LinkOptions) -> str | None:
    return link.password


class TestUser:
    @pytest.mark.parametrize("name", ["x" * 65_536, "x\0", "x\x1b", "\udcff"])
    def test_is_what_mqtt_can_say(self, settings: type[ClientSettings], name: str) -> None:
        with pytest.raises(SettingsError, match="username: must be text"):
            options(settings, {"username": name})
        assert user(options(settings, {"username": "x" * 65_535}))

    @pytest.mark.parametrize("secret", ["x" * 65_536, "secret\udcff"])
    def test_has_a_password_that_mqtt_can_carry(
        self, settings: type[ClientSettings], secret: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "word"
        file.write_bytes(secret.encode(errors="surrogateescape"))
        for said in ({"password": secret}, {"password_file": str(file)}):
            with pytest.raises(SettingsError) as caught:
                options(settings, {"username": "ann", **said})
            assert "the password" in str(caught.value)
            assert secret[:6] not in str(caught.value)

    def test_in_the_brokers_url(self, settings: type[ClientSettings]) -> None:
        link = options(settings, {"broker": "mqtt://dom%2Fuser@broker"})
        assert (user(link), link.url.host) == ("dom/user", "broker")

    @pytest.mark.parametrize("name", ["MQTT_USERNAME", "INFERBUS_USERNAME"])
    def test_in_the_flag_before_the_environment(
        self, settings: type[ClientSettings], monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, "bob")
        assert user(options(settings, {"broker": "mqtt://ann@broker"})) == "ann"
        assert user(options(settings, {"broker": "mqtt://broker"})) == "bob"
        assert user(options(settings, {"broker": "mqtt://ann@broker", "username": "eve"})) == "eve"

    def test_in_our_environment_before_mosquittos_and_that_before_the_file(
        self, settings: type[ClientSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text("broker: mqtt://fay@broker\nusername: gil\n")
        assert user(options(settings, {}, file)) == "gil"
        monkeypatch.setenv("MQTT_USERNAME", "bob")
        assert user(options(settings, {}, file)) == "bob"
        monkeypatch.setenv("INFERBUS_BROKER", "mqtt://ann@broker")
        assert user(options(settings, {}, file)) == "ann"

    def test_is_the_one_in_the_topics(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MQTT_USERNAME", "bob")
        assert ClientSettings.load({"broker": "mqtt://ann@broker", "identity": "topic"}).scope == "general/users/ann"


class TestPassword:
    @pytest.fixture
    def word_file(self, tmp_path: Path) -> Path:
        file = tmp_path / "password"
        file.write_text("of the file\n")
        return file

    @pytest.fixture(autouse=True)
    def _a_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MQTT_USERNAME", "ann")

    @pytest.mark.parametrize("name", ["INFERBUS_PASSWORD", "MQTT_PASSWORD", "INFERBUS_PASSWORD_FILE"])
    def test_without_a_user_is_refused_since_it_would_never_be_sent(
        self, settings: type[ClientSettings], monkeypatch: pytest.MonkeyPatch, word_file: Path, name: str
    ) -> None:
        monkeypatch.setenv(name, str(word_file))
        assert word(options(settings, {"broker": "mqtt://ann@broker"})) is not None
        monkeypatch.delenv("MQTT_USERNAME")
        assert word(options(settings, {"broker": "mqtt://ann@broker"})) is not None
        with pytest.raises(SettingsError, match=f"never sent without a user.*{name}") as caught:
            settings.load({})
        assert str(word_file) not in str(caught.value)
        with pytest.raises(SettingsError, match="password_file: a password is never sent without a user"):
            settings.load({"password_file": str(word_file)})

    def test_that_is_empty_is_none(self, settings: type[ClientSettings], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MQTT_USERNAME")
        monkeypatch.setenv("INFERBUS_PASSWORD", "")
        options(settings, {})

    @pytest.mark.parametrize("name", ["MQTT_PASSWORD", "INFERBUS_PASSWORD"])
    def test_of_the_flags_file_before_the_environments(
        self, settings: type[ClientSettings], monkeypatch: pytest.MonkeyPatch, word_file: Path, name: str
    ) -> None:
        monkeypatch.setenv(name, "of the environment")
        assert word(options(settings, {"password_file": str(word_file)})) == "of the file"
        assert word(options(settings, {})) == "of the environment"

    def test_of_the_environment_before_the_settings_file(
        self, settings: type[ClientSettings], monkeypatch: pytest.MonkeyPatch, word_file: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "settings.yaml"
        file.write_text(f"password_file: {word_file}\n")
        assert word(options(settings, {}, file)) == "of the file"
        monkeypatch.setenv("INFERBUS_PASSWORD", "of the environment")
        assert word(options(settings, {}, file)) == "of the environment"
        monkeypatch.delenv("INFERBUS_PASSWORD")
        file.write_text("password: of the settings\n")
        monkeypatch.setenv("INFERBUS_PASSWORD_FILE", str(word_file))
        assert word(options(settings, {}, file)) == "of the file"


class TestFiles:
    @pytest.mark.parametrize("name", ["password_file", "cafile", "cert", "key"])
    def test_no_file_has_such_a_name(self, settings: type[ClientSettings], tmp_path: Path, name: str) -> None:
        file = tmp_path / "settings.yaml"
        certificate = "cert: cert.pem\n" if name == "key" else ""
        file.write_text(f'broker: {TLS}\nusername: ann\n{certificate}{name}: "\\0"\n')
        with pytest.raises(SettingsError, match=f"{name}: must be a path, without NUL"):
            options(settings, {}, file)


class TestTls:
    @pytest.mark.parametrize("name", ["cafile", "cert", "key"])
    @pytest.mark.parametrize("scheme", ["mqtt", "ws"])
    def test_files_for_it_without_it_are_refused(self, settings: type[ClientSettings], scheme: str, name: str) -> None:
        with pytest.raises(SettingsError, match=f"{name}.* {scheme}s"):
            settings.load({"broker": f"{scheme}://broker", name: "file.pem"})

    def test_also_where_the_broker_is_the_default_or_from_elsewhere(
        self, settings: type[ClientSettings], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(SettingsError, match="cafile"):
            settings.load({"cafile": "file.pem"})
        monkeypatch.setenv("MQTT_HOST", "broker")
        monkeypatch.setenv("INFERBUS_CAFILE", "file.pem")
        with pytest.raises(SettingsError, match="cafile"):
            settings.load({})
        monkeypatch.setenv("MQTT_PORT", "8883")
        assert options(settings, {}).tls.ca_file == Path("file.pem")

    def test_a_key_without_a_certificate_is_refused(self, settings: type[ClientSettings]) -> None:
        with pytest.raises(SettingsError, match=r"key.*cert"):
            settings.load({"broker": TLS, "key": "key.pem"})
        assert options(settings, {"broker": TLS, "cert": "both.pem"}).tls.cert_file == Path("both.pem")
