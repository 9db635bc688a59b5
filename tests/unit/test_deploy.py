"""What deploy/ says about itself and the worker, checked without systemd and Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml

from inferbus_client.units import parse_duration

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
#: Promise 4: SIGTERM ends the worker within its drain plus this.
GRACE: Final = 2.0


def seconds(text: str) -> float:
    value = parse_duration(text)
    assert isinstance(value, float)
    return value


def test_systemd_waits_for_the_whole_drain() -> None:
    unit = (DEPLOY / "systemd" / "inferbus-worker.service").read_text()
    (drain,) = re.findall(r"^Environment=INFERBUS_DRAIN_TIMEOUT=(\S+)$", unit, re.MULTILINE)
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert float(stop) > seconds(drain) + GRACE


def test_docker_waits_for_the_whole_drain() -> None:
    worker = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]["worker"]
    assert seconds(worker["stop_grace_period"]) > seconds(worker["environment"]["INFERBUS_DRAIN_TIMEOUT"]) + GRACE


def test_systemd_tries_for_ever_but_neither_wrong_options_nor_a_taken_id() -> None:
    unit = (DEPLOY / "systemd" / "inferbus-worker.service").read_text()
    assert re.search(r"^StartLimitIntervalSec=0$", unit, re.MULTILINE)
    assert re.search(r"^RestartPreventExitStatus=2 6$", unit, re.MULTILINE)
