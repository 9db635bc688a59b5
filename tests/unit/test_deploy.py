"""What deploy/ says about itself and the worker, checked without systemd and Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from inferbus_client.settings.gateway import GatewaySettings
from inferbus_client.units import parse_duration
from inferbus_worker.settings.worker import Settings

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
#: Promise 4: SIGTERM ends the worker within its drain plus this.
GRACE: Final = 2.0


def services() -> dict[str, Any]:
    """Docker Compose's, by name."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    return found


def seconds(text: str) -> float:
    value = parse_duration(text)
    assert isinstance(value, float)
    return value


UNITS: Final = ("inferbus-worker", "inferbus-gateway")


@pytest.mark.parametrize("name", UNITS)
def test_systemd_waits_for_the_whole_drain(name: str) -> None:
    unit = (DEPLOY / "systemd" / f"{name}.service").read_text()
    (drain,) = re.findall(r"^Environment=INFERBUS_DRAIN_TIMEOUT=(\S+)$", unit, re.MULTILINE)
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert float(stop) > seconds(drain) + GRACE


@pytest.mark.parametrize("service", ["worker", "gateway"])
def test_docker_waits_for_the_whole_drain(service: str) -> None:
    made = services()[service]
    assert seconds(made["stop_grace_period"]) > seconds(made["environment"]["INFERBUS_DRAIN_TIMEOUT"]) + GRACE


def test_docker_s_worker_believes_docker_s_gateway_and_its_keys_are_where_a_change_is_seen() -> None:
    worker, gateway = (services()[name] for name in ("worker", "gateway"))
    login = gateway["environment"]["INFERBUS_USERNAME"]
    assert worker["environment"]["INFERBUS_GATEWAYS"] == login == "inferbus-gateway"
    (volume,) = gateway["volumes"]
    folder = volume.partition(":")[2]
    assert gateway["environment"]["INFERBUS_API_KEYS"].startswith(f"{folder}/")


def test_docker_s_services_have_settings_that_there_are() -> None:
    for name, model in (("worker", Settings), ("gateway", GatewaySettings)):
        said = services()[name]["environment"]
        assert {variable.removeprefix("INFERBUS_").lower() for variable in said} <= model.model_fields.keys()


@pytest.mark.parametrize("name", UNITS)
def test_systemd_tries_for_ever_but_neither_wrong_options_nor_a_taken_id(name: str) -> None:
    unit = (DEPLOY / "systemd" / f"{name}.service").read_text()
    assert re.search(r"^StartLimitIntervalSec=0$", unit, re.MULTILINE)
    assert re.search(r"^RestartPreventExitStatus=2 6$", unit, re.MULTILINE)


def test_systemd_s_gateway_has_settings_that_there_are_and_are_good_together(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (DEPLOY / "systemd" / "gateway.env").read_text().splitlines()
    said = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert {variable.removeprefix("INFERBUS_").lower() for variable in said} <= GatewaySettings.model_fields.keys()
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert GatewaySettings.load().scope == "general/users/inferbus-gateway"
