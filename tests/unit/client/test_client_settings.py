"""Client settings: precedence, mosquitto's spellings, and no secret anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from inferbus_client.cli.ask import ask
from inferbus_client.errors import SettingsError
from inferbus_client.settings.client import ClientSettings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MQTT_HOST", "MQTT_PORT", "MQTT_USERNAME", "MQTT_PASSWORD", "INFERBUS_BROKER", "INFERBUS_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def test_flags_before_environment_before_file_before_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "client.yaml"
    file.write_text("project: from-file\nretries: 7\nbroker: mqtt://file-host\n")
    monkeypatch.setenv("INFERBUS_PROJECT", "from-environment")
    monkeypatch.setenv("MQTT_HOST", "mosquitto-host")
    monkeypatch.setenv("MQTT_PORT", "1884")
    settings = ClientSettings.load({"qos": "0"}, file)
    assert (settings.qos, settings.project, settings.retries) == (0, "from-environment", 7)
    assert settings.broker == "mqtt://mosquitto-host:1884"
    assert settings.timeout == 120.0
    monkeypatch.setenv("INFERBUS_BROKER", "mqtt://ours")
    assert ClientSettings.load({"project": "from-flag"}, file).broker == "mqtt://ours:1883"
    assert ClientSettings.load({"project": "from-flag"}, file).project == "from-flag"


@pytest.mark.parametrize(
    ("said", "meant"), [("mqttv5", "5"), ("mqttv311", "3.1.1"), ("311", "3.1.1"), ("auto", "auto"), ("5", "5")]
)
def test_mosquittos_names_of_protocol_versions(said: str, meant: str) -> None:
    assert ClientSettings.load({"mqtt_version": said}).mqtt_version == meant


@pytest.mark.parametrize("said", ["off", "0", 0, "0s", False])
def test_pacing_can_be_off(said: object) -> None:
    assert ClientSettings.load({"pacing": said}).pacing == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", "0s"), ("qos", "3"), ("project", "a/b"), ("session", "a b"), ("client_id", "+"), ("pacing", "fast")],
)
def test_an_unusable_setting_is_one_sentence_that_names_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        ClientSettings.load({name: value})


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "client.yaml"
    file.write_text("retrys: 7\n")
    with pytest.raises(SettingsError, match="no setting retrys"):
        ClientSettings.load(file=file)


def test_no_secret_is_printed() -> None:
    word = "hunter2"
    settings = ClientSettings.load({"username": "ann", "password": word})
    assert word not in f"{settings!r} {settings} {settings.link_options('x')!r}"
    assert settings.link_options("x").password == word


def test_mosquittos_spellings_are_flags() -> None:
    shown = CliRunner().invoke(ask, ["--help"]).output
    for flag in ("-u,", "-P ", "-i,", "-q,", "-V,", "-W,", "--cafile", "--cert", "--key", "--config"):
        assert flag in shown, flag
    assert "INFERBUS_PASSWORD" in shown
