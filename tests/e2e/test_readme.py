"""Every block of the README, and of the pages it leads to, is executed or checked against what it speaks of.

A block is tried by the mark in the line before it, else by its language; one that nobody tries fails a test here.
Wherever a block says 1883, or leaves the port out, it runs on a broker of the test's own.

Each block marked `tour` is one terminal; the terminals open in order, each when the one before is ready, and the last
one must end well. `tour output` holds lines that somebody must have printed by then.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pexpect
import pytest
import yaml
from jsonschema import Draft202012Validator

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.gateway.keys_file import hash_of, new_token
from inferbus_worker.settings.worker import Settings
from support.batch_files import request, write
from support.gateway import told
from support.inferbus import environment, inferbus
from support.listener import Listener
from support.mosquitto import Mosquitto, free_port, mosquitto_pub
from support.needs import needs_module, needs_program
from support.readme import PAGES, Block, all_blocks, blocks
from support.scripts import ROOT, Running
from support.waiting import LOADING, until

#: How each kind of block is tried: by the test of that name here, or elsewhere.
TRIED: Final = {
    "drawing": "test_the_drawing_names_topics_that_are_served",
    "scripts": "test_the_scripts_are_there",
    "commands": "test_the_commands_are_there",
    "tour": "test_the_tour_does_what_it_says",
    "tour output": "test_the_tour_does_what_it_says",
    "synopsis": "test_serve_takes_what_its_synopsis_says",
    "yaml": "test_a_configuration_file_is_served",
    "models": "test_a_file_with_models_is_taken",
    "backend": "test_the_form_for_one_remote_model_is_taken",
    "group": "test_the_commands_of_a_group_are_taken",
    "install": "tests/e2e/test_install.py",
    "verbs": "test_each_verb_runs",
    "python": "test_the_program_runs",
    "batch lines": "test_a_file_of_requests_is_answered",
    "cases": "test_cases_of_one_s_own_are_played",
    "gateway start": "test_the_gateway_does_what_its_page_says",
    "gateway": "test_the_gateway_does_what_its_page_says",
    "gateway python": "test_the_gateway_does_what_its_page_says",
    "gateway keys": "test_the_gateway_does_what_its_page_says",
    "keys file": "test_a_file_of_keys_is_taken",
    "tools": "test_an_exchange_about_tools_is_what_the_schemas_ask_for",
    "mermaid": "tests/unit/test_documents.py",
}
PRELUDE: Final = r"""
set -euo pipefail
for program in mosquitto_pub mosquitto_sub mosquitto_rr; do
  eval "$program() { command $program -p $TOUR_PORT \"\$@\"; }"
done
"""


StartWorker = Callable[..., Any]


def test_every_block_is_tried() -> None:
    untried = [f"{block.page}, line {block.line}" for block in all_blocks() if _kind(block) not in TRIED]
    assert not untried, f"no test tries the block in {untried}: mark it, see {__name__}"
    assert {_kind(block) for block in all_blocks()} == set(TRIED)


def _kind(block: Block) -> str:
    return block.mark or block.language


def _of_kind(kind: str) -> list[str]:
    return [block.text for block in all_blocks() if _kind(block) == kind]


@pytest.mark.vllm
def test_the_tour_does_what_it_says() -> None:
    needs_module("vllm")
    needs_program("mosquitto_sub")
    with Mosquitto("log_type subscribe") as broker, ExitStack() as open_terminals:
        terminals: list[Terminal] = []
        for block in blocks("tour"):
            if terminals:
                terminals[-1].wait_until_ready(broker)
            terminals.append(open_terminals.enter_context(Terminal(broker, block)))
        assert terminals[-1].wait(60) == 0, terminals[-1].err
        for line in "".join(blocks("tour output")).splitlines():
            _wait_for_line(line, terminals)


class Terminal(Running):
    """One block of the tour, in a shell that knows the broker's port."""

    def __init__(self, broker: Mosquitto, block: str) -> None:
        self.block = re.sub(r"\b1883\b", str(broker.port), block)
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        env = {"PATH": path, "TOUR_PORT": str(broker.port), "INFERBUS_BROKER": broker.url}
        self._subscriptions_before = _subscriptions(broker)
        super().__init__(["bash", "-c", PRELUDE + self.block], env)

    def wait_until_ready(self, broker: Mosquitto) -> None:
        """A worker that it starts is ready, a subscription is made: then the reader goes on to the next terminal."""
        if "inferbus serve" in self.block:
            with Listener(broker, topics.presence("+")) as presence:
                until(lambda: any('"ready"' in heard.text for heard in presence.heard), LOADING)
        elif "mosquitto_sub" in self.block:
            until(lambda: _subscriptions(broker) > self._subscriptions_before)


def _subscriptions(broker: Mosquitto) -> int:
    """How many subscriptions were made so far; Mosquitto logs `CLIENT QOS FILTER` for each."""
    return len(re.findall(r"^\d+: \S+ [012] \S+$", broker.log, re.MULTILINE))


def _wait_for_line(line: str, terminals: list[Terminal]) -> None:
    try:
        until(lambda: any(line in terminal.out for terminal in terminals))
    except AssertionError:
        shown = "\n".join(f"$ {terminal.block}{terminal.out}{terminal.err}" for terminal in terminals)
        raise AssertionError(f"nobody printed {line!r}:\n{shown}") from None


# --- the other blocks ---


def test_the_drawing_names_topics_that_are_served() -> None:
    (drawing,) = _of_kind("drawing")
    named = re.findall(r"\bgeneral/[\w/{}]+", drawing)
    assert topics.assistant_response("general", "{session}") in named
    assert set(named) - {topics.assistant_response("general", "{session}")} <= set(topics.inbound_filters("general"))


def test_the_scripts_are_there() -> None:
    """What they do, their own tests try: one of them runs this one."""
    commands = [line.split()[0] for block in _of_kind("scripts") for line in block.splitlines()]
    assert commands
    for command in commands:
        assert os.access(ROOT / command, os.X_OK)
        subprocess.run(["bash", "-n", ROOT / command], check=True, timeout=30)


@pytest.mark.parametrize("command", "".join(_of_kind("commands")).splitlines())
def test_the_commands_are_there(command: str) -> None:
    """What they do takes too long; the program and every file that they name are there."""
    program, *arguments = command.partition("#")[0].split()
    assert os.access(ROOT / program, os.X_OK) or os.access(ROOT / ".venv/bin" / program, os.X_OK)
    for path in (argument for argument in arguments if "/" in argument):
        assert (ROOT / path).exists(), path


@pytest.mark.slow
def test_serve_takes_what_its_synopsis_says() -> None:
    (synopsis,) = _of_kind("synopsis")
    command = synopsis.replace("MODEL", "demo").replace("[our options]", "--workers 2")
    command = re.sub(r"\[any option of vLLM.*?\]", "--max-model-len 128", command)
    run = inferbus(*command.split()[1:], "--check-config")
    assert run.returncode == 0, run.stderr
    assert "workers: 2" in run.stdout
    assert "# for vLLM: --max-model-len 128" in run.stdout


@pytest.mark.parametrize("text", _of_kind("yaml"))
@pytest.mark.slow
def test_a_configuration_file_is_served(
    text: str, own_broker: Mosquitto, start_worker: StartWorker, tmp_path: Path
) -> None:
    file = tmp_path / "inferbus.yaml"
    file.write_text(text)
    written = yaml.load(text, yaml.BaseLoader)  # noqa: S506 - it makes texts of everything
    checked = inferbus("serve", "demo", "--config", str(file), "--check-config")
    assert checked.returncode == 0, checked.stderr
    in_force = yaml.load(checked.stdout, yaml.BaseLoader)  # noqa: S506
    assert _says_all(in_force, written)
    worker = start_worker(broker=own_broker, config=file)
    with Listener(own_broker, "+/assistant_response/#") as listener:
        for project in written["projects"]:
            listener.publish(f"{project}/user_input/{worker.id}", "a b")
            until(lambda: [heard.text for heard in listener.heard] == ["a b"])
            listener.heard.clear()


@pytest.mark.parametrize("text", _of_kind("models"))
def test_a_file_with_models_is_taken(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its servers are not here; that such slots serve, tests/bus and tests/engine see."""
    file = tmp_path / "inferbus.yaml"
    file.write_text(text)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-a-test")
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"[\w-]+\.gguf", text):
        (tmp_path / name).touch()
    checked = inferbus("serve", "--config", str(file), "--check-config")
    assert checked.returncode == 0, checked.stderr
    assert "sk-for-a-test" not in checked.stdout + checked.stderr
    assert not checked.stderr
    in_force = yaml.load(checked.stdout, yaml.BaseLoader)  # noqa: S506 - it makes texts of everything
    assert in_force["models"].keys() == yaml.safe_load(text)["models"].keys()


@pytest.mark.parametrize("command", "".join(_of_kind("backend")).splitlines())
def test_the_form_for_one_remote_model_is_taken(command: str) -> None:
    checked = inferbus(*command.split()[1:], "--check-config")
    assert checked.returncode == 0, checked.stderr
    assert not checked.stderr


@pytest.mark.parametrize("command", "".join(_of_kind("group")).splitlines())
def test_the_commands_of_a_group_are_taken(command: str) -> None:
    """What a group does, tests/bus and tests/faults see."""
    checked = inferbus(*command.split()[1:], "--check-config")
    assert checked.returncode == 0, checked.stderr
    assert not checked.stderr


def _says_all(in_force: Any, written: Any) -> bool:
    """Whether everything that is written is in force; `2` and `2.0` are the same."""
    if isinstance(written, dict):
        return all(_says_all(in_force[name], value) for name, value in written.items())
    try:
        return float(in_force) == float(written)
    except ValueError:
        return bool(in_force == written)


@pytest.mark.parametrize("command", "".join(_of_kind("verbs")).splitlines())
def test_each_verb_runs(command: str, own_broker: Mosquitto, start_worker: StartWorker, tmp_path: Path) -> None:
    named = {"worker_id": command.split()[2], "remote_drain": True} if command.startswith("inferbus drain") else {}
    start_worker(broker=own_broker, rate_limit="off", **named)
    env = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", "INFERBUS_BROKER": own_broker.url}
    if command.startswith("inferbus status"):
        _watch(command, {**os.environ, **env}, "ready")
        return
    if command.startswith("inferbus forget"):
        gone = Presence(worker=command.split()[2], state="offline")
        mosquitto_pub(own_broker, topics.presence(gone.worker), gone.encode(), "-r")
    write(tmp_path / "requests.jsonl", [request("one"), request("two")])
    with Running(["bash", "-c", f"cd {tmp_path}; {command}"], env) as terminal:
        assert terminal.wait(120) == 0, terminal.out + terminal.err


def _watch(command: str, env: Mapping[str, str], words: str) -> None:
    """Until the words come up; a command that is live goes on until Ctrl-C."""
    child = pexpect.spawn("bash", ["-c", command], env=env, encoding="utf-8", timeout=60)
    try:
        child.expect_exact(words)
        child.sendintr()
        child.expect(pexpect.EOF)
    finally:
        child.close()
    assert child.exitstatus == 130


@pytest.mark.parametrize("program", _of_kind("python"))
def test_the_program_runs(program: str, own_broker: Mosquitto, start_worker: StartWorker, tmp_path: Path) -> None:
    settings = tmp_path / "worker.yaml"
    settings.write_text("projects: {general: {tools: true}}\n")
    start_worker(broker=own_broker, config=settings)
    run = subprocess.run(
        [sys.executable, "-c", re.sub(r"\b1883\b", str(own_broker.port), program)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Zorvek" in run.stdout
    assert run.stdout.endswith("\n")


@pytest.mark.parametrize("lines", _of_kind("batch lines"))
def test_a_file_of_requests_is_answered(
    lines: str, own_broker: Mosquitto, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker(broker=own_broker)
    (tmp_path / "requests.jsonl").write_text(lines)
    answers = tmp_path / "answers.jsonl"
    run = inferbus("batch", str(tmp_path / "requests.jsonl"), "-o", str(answers), "--broker", own_broker.url)
    assert run.returncode == 0, run.stderr
    assert len(answers.read_text().splitlines()) == len(lines.splitlines())


@pytest.mark.parametrize("cases", _of_kind("cases"))
def test_cases_of_one_s_own_are_played(
    cases: str, own_broker: Mosquitto, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker(broker=own_broker)
    (tmp_path / "mine.yaml").write_text(cases)
    run = inferbus("conformance", "--cases", str(tmp_path), "--broker", own_broker.url)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith("3 of 3 hold\n")


@pytest.mark.parametrize("exchange", _of_kind("tools"))
def test_an_exchange_about_tools_is_what_the_schemas_ask_for(exchange: str) -> None:
    asked, done, told = (json.loads(line) for line in exchange.splitlines())
    for message, kind in ((asked, "request"), (done, "done"), (told, "request")):
        schema = json.loads((ROOT / f"docs/schemas/{kind}.json").read_text())
        Draft202012Validator(schema).validate(message)
    assert [call["id"] for call in done["toolCalls"]] == [result["toolCallId"] for result in told["toolResults"]]


@pytest.mark.parametrize("text", _of_kind("keys file"))
def test_a_file_of_keys_is_taken(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    hashes = iter(hash_of(new_token()) for _ in range(text.count("sha256:…")))
    file.write_text(re.sub("sha256:…", lambda _: next(hashes), text))
    file.chmod(0o600)
    listed = inferbus("keys", "list", "--file", str(file), "--json")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("sha256") == 0
    assert all(name in listed.stdout for name in yaml.safe_load(text)["keys"])


def test_the_gateway_does_what_its_page_says(own_broker: Mosquitto, start_worker: StartWorker, tmp_path: Path) -> None:
    needs_program("curl")
    start_worker(broker=own_broker, rate_limit="off")
    port = free_port()
    here = {r"mqtts?://(localhost|broker\.example\.org)": own_broker.url, r"0\.0\.0\.0:8080": f"127.0.0.1:{port}"}
    env = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}

    def running(text: str, program: Sequence[str] = ("bash", "-euc")) -> Running:
        for pattern, ours in {**here, r"\b8080\b": str(port)}.items():
            text = re.sub(pattern, ours, text)
        return Running([*program, f"cd {tmp_path}; {text}" if program[0] == "bash" else text], env)

    for block in blocks("gateway keys"):
        with running(block) as terminal:
            assert terminal.wait(60) == 0, terminal.err
            assert terminal.out.count("ib-") == block.count("keys add")
    for start in blocks("gateway start"):
        with running(start) as gateway:
            gateway.says("it has general")
            if "--api-keys" in start:
                assert told(port, "/v1/models")[0] == 401
                continue
            for block in blocks("gateway"):
                with running(block) as terminal:
                    assert terminal.wait(60) == 0, terminal.err
                    assert '"content":"Hello"' in terminal.out
            for block in blocks("gateway python"):
                with running(block, (sys.executable, "-c")) as terminal:
                    assert terminal.wait(60) == 0, terminal.err
                    assert terminal.out == "Hello"


# --- the tables ---

_ROW: Final = re.compile(r"^\| (`--.+?) \| (.*?) \| .* \|$", re.MULTILINE)
ROWS: Final = [row for page in PAGES for row in _ROW.findall(page.read_text())]


def test_there_are_tables_of_options() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize(("options", "defaults"), ROWS)
def test_a_table_s_options_are_there_and_have_these_defaults(options: str, defaults: str) -> None:
    names = [_field(flag) for flag in re.findall(r"`--([\w-]+)", options)]
    written = [default.strip("` ") for default in defaults.split(", ") if default]
    for name, default in zip(names, written, strict=bool(written)):
        in_force = getattr(Settings.load(), name)
        is_none = default == "none" and in_force in (None, [])
        assert is_none or in_force == getattr(Settings.load({name: default}), name)


def _field(flag: str) -> str:
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if f"--{flag}" in {f"--{name.replace('_', '-')}", *map(str, _listed(extra.get("flags")))}:
            return name
    raise AssertionError(f"`inferbus serve` has no --{flag}")


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
