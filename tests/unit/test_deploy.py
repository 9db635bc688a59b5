"""What deploy/ says about itself and the worker, checked without systemd and Docker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
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


def test_systemd_tries_for_ever_and_not_with_wrong_options() -> None:
    unit = (DEPLOY / "systemd" / "inferbus-worker.service").read_text()
    assert re.search(r"^StartLimitIntervalSec=0$", unit, re.MULTILINE)
    assert re.search(r"^RestartPreventExitStatus=2$", unit, re.MULTILINE)


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ({"mine": {"presence": {"state": "ready"}}}, 0),
        ({"mine": {"presence": {"state": "loading"}}}, 1),
        ({"mine": {"presence": {"state": "offline"}}, "other": {"presence": {"state": "ready"}}}, 1),
        ({"other": {"presence": {"state": "ready"}}}, 1),
        ({"mine": {"presence": None}}, 1),
        (None, 1),
    ],
    ids=["ready", "loading", "only another is ready", "only another is there", "stats alone", "no broker"],
)
def test_a_container_is_healthy_when_its_own_worker_is_ready(
    tmp_path: Path, shown: dict[str, Any] | None, status: int
) -> None:
    command = tmp_path / "inferbus"
    command.write_text(
        f"#!/bin/sh\n[ \"$*\" = 'status --once --json' ] || exit 2\necho '{json.dumps(shown)}'\n"
        if shown is not None
        else "#!/bin/sh\nexit 3\n"
    )
    command.chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    done = subprocess.run(
        [DEPLOY / "docker" / "healthy"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "INFERBUS_WORKER_ID": "mine"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, "")
