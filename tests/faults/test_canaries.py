"""Trial 33, every secret in every log format and every kind of failure: none of them is shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_worker.engines.vllm.arguments import DEMO_PATH
from support.inferbus import PROGRAM, environment
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.needs import needs_module
from support.requester import Requester
from support.waiting import PATIENCE
from support.worker import WorkerProcess

#: In every secret, and in no other text.
_CANARY: Final = "canary7d1f"
_FORMATS: Final = ("console", "json", "auto")
_HUB: Final = {"HF_TOKEN": f"hf_{_CANARY}", "HUGGING_FACE_HUB_TOKEN": f"hf_{_CANARY}", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def picky() -> Iterator[Mosquitto]:
    """A broker that lets nobody in."""
    with Mosquitto("allow_anonymous false") as broker:
        yield broker


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a secret in every file, each unusable in a way of its own."""
    folder = tmp_path_factory.mktemp("secrets")
    texts = {
        "password": _CANARY,
        "key.pem": f"-----BEGIN PRIVATE KEY-----\n{_CANARY}\n-----END PRIVATE KEY-----\n",
        "broken.yaml": f"password: {_CANARY}\nworkers: [1, {_CANARY}\n",
        "twice.yaml": f"password: {_CANARY}\npassword: {_CANARY}2\n",
        "wrong.yaml": f"password: {_CANARY}\nworkers: {_CANARY}\n",
        "nested.yaml": f"password: [{_CANARY}]\n",
        "vllm.yaml": f"vllm:\n  hf_token: {_CANARY}\n  no_such_option: 1\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "binary").write_bytes(_CANARY.encode() + b"\xff\xfe")
    return folder


#: Arguments that make a start fail; {} is the folder with the secrets.
_FAILING: Final[dict[str, tuple[str, ...]]] = {
    "a password in the URL": ("--broker", f"mqtt://alice:{_CANARY}@127.0.0.1"),
    "a password that is refused": ("--username", "alice", "--password-file", "{}/password"),
    "a password file of bytes": ("--username", "alice", "--password-file", "{}/binary"),
    "a key that is none": ("--broker", "mqtts://127.0.0.1:1", "--cert", "{}/key.pem", "--key", "{}/key.pem"),
    "an authority that is none": ("--broker", "mqtts://127.0.0.1:1", "--cafile", "{}/key.pem"),
    "a file that is no YAML": ("--config", "{}/broken.yaml"),
    "a setting said twice": ("--config", "{}/twice.yaml"),
    "a wrong value": ("--config", "{}/wrong.yaml"),
    "a wrong kind of value": ("--config", "{}/nested.yaml"),
}


@pytest.mark.parametrize("style", _FORMATS)
@pytest.mark.parametrize("arguments", _FAILING.values(), ids=_FAILING.keys())
def test_a_start_that_fails(picky: Mosquitto, files: Path, arguments: tuple[str, ...], style: str) -> None:
    said = serve(
        *("--engine", "simulated", "--log-format", style, "--broker-timeout", "1s"),
        *([] if "--broker" in arguments else ["--broker", picky.url]),
        *(word.format(files) for word in arguments),
    )
    assert said.returncode in {2, 3}
    assert_silent(said.stdout + said.stderr)


@pytest.mark.parametrize("style", _FORMATS)
def test_a_request_that_fails(broker: Mosquitto, start_worker: Callable[..., Any], style: str) -> None:
    """In its turn: its prompt, its answer and its schema are its own business."""
    project = f"failing-{style}"
    config = {"INFERBUS_PROJECTS": json.dumps({project: {"response_format": True, "system_prompt": _CANARY}})}
    with pytest.MonkeyPatch.context() as variables:
        for name, value in config.items():
            variables.setenv(name, value)
        worker = start_worker(log_format=style, simulated_failure_rate=1)
    with Requester(broker, project) as requester:
        for fields in ({}, {"stream": True}, {"params": {"response_format": form(_CANARY)}}):
            requester.send(_CANARY, systemPrompt=_CANARY, **fields)
        requester.settle()
        assert {end for row in requester.ledger.rows.values() for end in row.ends} == {"engine_error"}
        overload(requester, broker, project)
    assert "the engine failed a request" in worker.log
    assert_silent(worker.log)


def overload(requester: Requester, broker: Mosquitto, project: str) -> None:
    """And what is refused before its turn."""
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"pattern": "(" * 600 + _CANARY}}}
    requester.send(_CANARY, params={"response_format": shape})
    requester.send(_CANARY, params={_CANARY: 1})
    requester.send(_CANARY, maxTokens=_CANARY)
    requester.settle()
    with Listener(broker) as publisher:
        publisher.publish(f"{project}/user_input/s", f'{{"message": "{_CANARY}", '.encode() + b"\xff")
        publisher.publish(f"{project}/cancel/s", f'{{"requestId": ["{_CANARY}"]}}')


def form(text: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {text: {"const": text}}}
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.mark.vllm
def test_a_model_that_cannot_be_loaded(broker: Mosquitto, files: Path, tmp_path: Path) -> None:
    """With a token for the hub in the environment and in the file; in words, whichever part of vLLM fails."""
    needs_module("vllm")
    truncated = Path(shutil.copytree(DEMO_PATH, tmp_path / "truncated"))
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    token = tmp_path / "token.yaml"
    token.write_text(f"vllm: {{hf_token: {_CANARY}, dtype: float32, enforce_eager: true, max_num_seqs: 4}}\n")
    commands: dict[str, tuple[str, ...]] = {
        "does not cover its file|incomplete metadata|file not fully covered": (
            *(str(truncated), "--config", str(token), "--log-format", "json"),
        ),
        "no_such_option": ("demo", "--config", str(files / "vllm.yaml"), "--log-format", "console"),
        "hub is off": ("nobody/no-such-model", "--config", str(token), "--log-format", "console"),
    }
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda command: serve(*command, "--broker", broker.url), commands.values()))
    for words, run in zip(commands, runs, strict=True):
        assert run.returncode in {1, 2}
        assert any(word in run.stderr for word in words.split("|")), run.stderr
        assert "root cause above" not in run.stderr.splitlines()[-2]
        assert_silent(run.stdout + run.stderr)
    assert_whole_lines(runs[0].stderr)


def test_what_the_engine_refuses_and_fails(
    broker: Mosquitto, real_worker: WorkerProcess, report: Callable[..., None]
) -> None:
    """Schemas, prompts and answers in a real vLLM: refused before it, by it, given up on the way, cut off."""
    with Requester(broker, "engine", echo=False) as requester:
        refused = {"type": "object", "properties": {_CANARY: {"uniqueItems": True, "const": _CANARY}}}
        given_up: dict[str, Any] = {"properties": {f"{_CANARY}{number}": {} for number in range(500)}}
        for schema in (refused, given_up, form(_CANARY)):
            shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            for more in ({}, {"stream": True}, {"deadlineMs": 50}):
                requester.send(f"My name is {_CANARY}", params={"response_format": shape}, **more)
        requester.send("word " * 50_000 + _CANARY)
        requester.send(_CANARY, params={"stop": ["", _CANARY]})
        requester.settle(3 * PATIENCE)  # the longest prompt that there can be, on a machine that is busy
    # All of it: of what it says again and again it says but the first, which may have been another test's.
    assert_silent(real_worker.log)
    assert_whole_lines(real_worker.log)
    report(33, f"{len(_FORMATS)} formats, {len(_FAILING) + 3} failing starts, refused and failed requests: shown 0")


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A worker with a secret in each of its variables, run to its end."""
    own = f"leaky-{uuid.uuid4().hex[:8]}"
    secrets = {"INFERBUS_USERNAME": "alice", "INFERBUS_PASSWORD": _CANARY, "MQTT_PASSWORD": _CANARY, **_HUB}
    if "--password-file" in arguments:
        del secrets["INFERBUS_PASSWORD"], secrets["MQTT_PASSWORD"]
    return subprocess.run(
        [PROGRAM, "serve", "--worker-id", own, "--project", own, *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        env={**environment(**secrets), "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")},
        check=False,
    )


def assert_silent(said: str) -> None:
    assert said
    assert _CANARY not in said, next(line for line in said.splitlines() if _CANARY in line)


def assert_whole_lines(said: str) -> None:
    for line in said.splitlines():
        assert line.startswith("{"), line
        assert {"event", "level", "logger"} <= json.loads(line).keys()
