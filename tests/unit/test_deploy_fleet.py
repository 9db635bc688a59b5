"""The Compose files for a group of workers, laid on each other as Docker Compose does it, and without Docker."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from inferbus_client.settings.gateway import GatewaySettings
from inferbus_client.units import parse_duration
from inferbus_worker.settings.worker import Settings
from support.readme import all_blocks

DOCKER: Final = Path(__file__).parents[2] / "deploy" / "docker"
WORKERS: Final = ("worker", "worker-2")
#: Promise 4: SIGTERM ends the worker within its drain plus this.
GRACE: Final = 2.0


def written(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text())
    return found


def laid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings grow into each other, lists grow longer, anything else is replaced."""
    merged = dict(below)
    for name, value in above.items():
        there = merged.get(name)
        if isinstance(there, dict) and isinstance(value, dict):
            merged[name] = laid(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            merged[name] = [*there, *value]
        else:
            merged[name] = value
    return merged


def fleet() -> dict[str, Any]:
    """Both files together, with what a service extends written out."""
    compose = written("compose.yaml")
    both = laid(compose, written("fleet.yaml"))
    for name, service in both["services"].items():
        if (source := service.pop("extends", None)) is not None:
            assert source["file"] == "compose.yaml"
            both["services"][name] = laid(compose["services"][source["service"]], service)
    return both


SERVICES: Final[dict[str, Any]] = fleet()["services"]


def test_a_group_is_two_workers_and_what_they_share_and_the_rest_is_as_it_was() -> None:
    alone = written("compose.yaml")["services"]
    assert alone.keys() == {"broker", "worker", "gateway"}
    assert not [name for name in alone["worker"]["environment"] if name in ("INFERBUS_STATE", "INFERBUS_GROUP")]
    assert SERVICES.keys() == {"broker", "redis", "gateway", *WORKERS}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_bound_on_memory_and_on_processors(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_says_how_it_is_and_comes_back(name: str) -> None:
    image = (DOCKER / "Dockerfile").read_text().partition("AS worker")[2].partition("\nFROM ")[0]
    assert "healthcheck" in SERVICES[name] or (name in WORKERS and "HEALTHCHECK" in image)
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", [*WORKERS, "gateway"])
def test_every_drain_has_its_time(name: str) -> None:
    drain = parse_duration(SERVICES[name]["environment"]["INFERBUS_DRAIN_TIMEOUT"])
    grace = parse_duration(SERVICES[name]["stop_grace_period"])
    assert isinstance(drain, float)
    assert isinstance(grace, float)
    assert grace > drain + GRACE


def test_the_workers_are_one_group_with_ids_of_their_own() -> None:
    said = [SERVICES[name]["environment"] for name in WORKERS]
    assert [one.pop("INFERBUS_WORKER_ID") for one in said] == ["worker-1", "worker-2"]
    assert said[0] == said[1]
    for name in WORKERS:
        assert SERVICES[name]["depends_on"].keys() == {"broker", "redis"}


@pytest.mark.parametrize("name", [*WORKERS, "gateway"])
def test_every_setting_that_is_given_is_one(name: str) -> None:
    said = {variable.removeprefix("INFERBUS_").lower() for variable in SERVICES[name]["environment"]}
    assert said <= (GatewaySettings if name == "gateway" else Settings).model_fields.keys()


def test_what_services_name_is_there() -> None:
    both = fleet()
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE))
    assert {service["build"]["target"] for service in SERVICES.values() if "build" in service} <= stages
    named = [secret for service in SERVICES.values() for secret in service.get("secrets", [])]
    assert set(named) == both["secrets"].keys()
    volumes = [volume.partition(":")[0] for service in SERVICES.values() for volume in service["volumes"]]
    assert set(volumes) == both["volumes"].keys()


def test_no_file_holds_a_secret() -> None:
    assert all(secret["file"].startswith("private/") for secret in fleet()["secrets"].values())
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or name.endswith("_FILE"), name
            assert "@" not in value


def test_the_commands_of_the_readme_name_what_is_there() -> None:
    """Services, files, profiles and secrets; the broker's programs, which its image has from deploy/mosquitto."""
    words = [shlex.split(line) for block in all_blocks(DOCKER / "README.md") for line in block.text.splitlines()]
    compose = [line[line.index("compose") + 1 :] for line in words if "compose" in line]
    assert {line[-1] for line in compose} >= {"build", "--detach"}
    for line in compose:
        verb = next(word for word in line if word in ("build", "up", "run", "exec"))
        before, rest = line[: line.index(verb)], line[line.index(verb) + 1 :]
        for option, value in zip(before[::2], before[1::2], strict=True):
            assert (DOCKER / value).is_file() if option == "--file" else [value] == SERVICES["gateway"]["profiles"]
        named = [word for word in rest if not word.startswith("-")]
        if verb in ("run", "exec"):
            assert named[0] in SERVICES
            assert named[1] in ("cat", "mosquitto_ctrl", "keys") or (DOCKER.parent / "mosquitto" / named[1]).is_file()
        elif verb == "up":
            assert set(named) <= SERVICES.keys()
    filled = {word[1:] for line in words for word in line if word.startswith(">")}
    secrets = laid(written("compose.yaml"), written("fleet.yaml"))["secrets"]
    assert {secret["file"] for secret in secrets.values()} <= filled


def test_redis_has_room_to_write_its_file_anew() -> None:
    conf = (DOCKER.parent / "redis" / "redis.conf").read_text()
    (most,) = re.findall(r"^maxmemory (\d+)mb$", conf, re.MULTILINE)
    limit = SERVICES["redis"]["deploy"]["resources"]["limits"]["memory"]
    assert limit == f"{2 * int(most) // 1024}g"
