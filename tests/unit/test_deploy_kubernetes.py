"""deploy/kubernetes: every file against Kubernetes' published schemas, and what they say against the worker."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from jsonschema import Draft202012Validator

from inferbus_client.contract import topics
from inferbus_client.units import parse_duration
from inferbus_worker.settings.worker import Settings
from support.needs import needs_module

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "kubernetes"
#: The oldest that README.md names, and the newest whose schemas we have.
VERSIONS: Final = ("1.29", "1.37")
#: Promise 4: SIGTERM ends the worker within its drain plus this.
GRACE: Final = 2.0

#: As https://keda.sh/docs/latest (reference/scaledobject-spec, scalers/prometheus) gives it: what we use, and no more.
_TRIGGER: Final = {
    "type": "object",
    "properties": {
        "type": {"const": "prometheus"},
        "metricType": {"enum": ["AverageValue", "Value"]},
        "metadata": {
            "type": "object",
            "properties": {
                "serverAddress": {"type": "string", "pattern": "^https?://"},
                "query": {"type": "string"},
                "threshold": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},
                "activationThreshold": {"type": "string"},
                "ignoreNullValues": {"enum": ["true", "false"]},
            },
            "required": ["serverAddress", "query", "threshold"],
            "additionalProperties": False,
        },
    },
    "required": ["type", "metadata"],
    "additionalProperties": False,
}
_SCALED_OBJECT: Final = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "properties": {
                "scaleTargetRef": {
                    "type": "object",
                    "properties": {name: {"type": "string"} for name in ("apiVersion", "kind", "name")},
                    "required": ["name"],
                    "additionalProperties": False,
                },
                "minReplicaCount": {"type": "integer", "minimum": 0},
                "maxReplicaCount": {"type": "integer", "minimum": 1},
                "pollingInterval": {"type": "integer", "minimum": 1},
                "triggers": {"type": "array", "items": _TRIGGER, "minItems": 1},
                "advanced": {
                    "type": "object",
                    "properties": {
                        "horizontalPodAutoscalerConfig": {
                            "type": "object",
                            "properties": {"behavior": {"type": "object"}},
                            "additionalProperties": False,
                        }
                    },
                    "additionalProperties": False,
                },
            },
            "required": ["scaleTargetRef", "triggers"],
            "additionalProperties": False,
        },
    },
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
}


def documents() -> Iterator[dict[str, Any]]:
    for file in sorted(FOLDER.glob("*.yaml")):
        yield from yaml.safe_load_all(file.read_text())


ALL: Final = {(document["kind"], document.get("metadata", {}).get("name", "")): document for document in documents()}
NATIVE: Final = [one for one in ALL.values() if one["kind"] not in ("Kustomization", "ScaledObject")]
STATEFUL_SET: Final[dict[str, Any]] = ALL["StatefulSet", "inferbus-worker"]
POD: Final[dict[str, Any]] = STATEFUL_SET["spec"]["template"]
(WORKER,) = POD["spec"]["containers"]
SETTINGS: Final[dict[str, str]] = ALL["ConfigMap", "inferbus-worker"]["data"]
HOOK: Final[list[str]] = WORKER["lifecycle"]["preStop"]["exec"]["command"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", NATIVE, ids=lambda document: document["kind"])
def test_every_object_is_as_kubernetes_publishes_it(document: dict[str, Any], version: str) -> None:
    """Strictly: a field that there is not is an error too."""
    needs_module("kubernetes_validate")
    from kubernetes_validate import validate  # noqa: PLC0415

    validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_keda_hands_on_is_as_kubernetes_publishes_it(version: str) -> None:
    needs_module("kubernetes_validate")
    from kubernetes_validate import validate  # noqa: PLC0415

    scaled = ALL["ScaledObject", "inferbus-worker"]
    Draft202012Validator(_SCALED_OBJECT).validate(scaled)
    spec = scaled["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "made-by-keda"},
        "spec": {
            "scaleTargetRef": spec["scaleTargetRef"],
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "behavior": behavior,
        },
    }
    validate(autoscaler, version, strict=True)


def test_it_scales_what_there_is_on_what_waits() -> None:
    spec = ALL["ScaledObject", "inferbus-worker"]["spec"]
    target = spec["scaleTargetRef"]
    assert (target["kind"], target["name"]) in ALL
    assert target["apiVersion"] == STATEFUL_SET["apiVersion"]
    (trigger,) = spec["triggers"]
    assert "inferbus_group_requests_waiting" in trigger["metadata"]["query"]
    assert spec["minReplicaCount"] == STATEFUL_SET["spec"]["replicas"]


def test_kustomize_has_every_file_but_the_one_that_needs_keda() -> None:
    resources = ALL["Kustomization", ""]["resources"]
    assert {*resources, "scaling.yaml", "kustomization.yaml"} == {file.name for file in FOLDER.glob("*.yaml")}
    assert [image["name"] for image in ALL["Kustomization", ""]["images"]] == [WORKER["image"]]


def test_every_setting_that_is_given_is_one() -> None:
    names = {*SETTINGS, *(one["name"] for one in WORKER["env"])} - {"MODEL"}
    assert {name.removeprefix("INFERBUS_").lower() for name in names} <= Settings.model_fields.keys()


def test_the_settings_are_good_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    assert Settings.load({}).ack == "after-reply"


def test_a_worker_s_id_is_its_pod_s_name() -> None:
    (said,) = [one for one in WORKER["env"] if one["name"] == "INFERBUS_WORKER_ID"]
    assert said["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert re.fullmatch(topics.NAME, f"{STATEFUL_SET['metadata']['name']}-4095")


def test_the_drain_has_its_time_and_one_before_it() -> None:
    drain = parse_duration(SETTINGS["INFERBUS_DRAIN_TIMEOUT"])
    assert isinstance(drain, float)
    assert POD["spec"]["terminationGracePeriodSeconds"] > drain + GRACE


def test_what_runs_before_it_names_the_pod_s_own_worker(tmp_path: Path) -> None:
    """Kubernetes runs a hook as it stands: it puts no variable in for `$(NAME)` there, as it does in `args`."""
    told = tmp_path / "inferbus"
    told.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    told.chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    hook = subprocess.run(
        HOOK, env={"PATH": path, "INFERBUS_WORKER_ID": "inferbus-worker-7"}, capture_output=True, text=True, check=True
    )
    assert hook.stdout.split()[:3] == ["drain", "inferbus-worker-7", "--username"]


def test_probes_ask_at_the_port_where_the_worker_answers() -> None:
    (port,) = WORKER["ports"]
    assert SETTINGS["INFERBUS_HTTP"] == f"0.0.0.0:{port['containerPort']}"
    asked = {name: WORKER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in asked.values()} == {port["name"]}
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }


def test_everything_speaks_of_the_same_pods() -> None:
    labels = POD["metadata"]["labels"]
    assert STATEFUL_SET["spec"]["selector"]["matchLabels"] == labels
    assert ALL["PodDisruptionBudget", "inferbus-worker"]["spec"]["selector"]["matchLabels"] == labels
    assert ALL["NetworkPolicy", "inferbus-worker"]["spec"]["podSelector"]["matchLabels"] == labels
    assert ALL["Service", STATEFUL_SET["spec"]["serviceName"]]["spec"]["selector"] == labels


def test_the_network_lets_out_to_the_broker_and_the_store_and_in_to_the_figures() -> None:
    policy = ALL["NetworkPolicy", "inferbus-worker"]["spec"]
    out = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert {
        int(SETTINGS[name].rpartition(":")[2].partition("/")[0]) for name in ("INFERBUS_BROKER", "INFERBUS_STATE")
    } <= out
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [WORKER["ports"][0]["name"]]


def test_no_file_holds_a_secret_and_readme_names_those_that_are_read() -> None:
    assert not [one for one in ALL.values() if one["kind"] == "Secret"]
    (secrets,) = [volume["secret"]["secretName"] for volume in POD["spec"]["volumes"] if "secret" in volume]
    (folder,) = [mount["mountPath"] for mount in WORKER["volumeMounts"] if mount["name"] == "secrets"]
    said = [*SETTINGS.values(), *" ".join(HOOK).split()]
    read = {value.removeprefix(f"{folder}/") for value in said if value.startswith(f"{folder}/")}
    readme = (FOLDER / "README.md").read_text()
    assert f"create secret generic {secrets}" in readme
    assert set(re.findall(r"--from-file=(\S+)", readme)) == read
    assert set(re.findall(r"^\| `([\w.-]+)` \| ", readme, re.MULTILINE)) >= read
