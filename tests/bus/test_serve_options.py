"""`inferbus serve` before it serves: what it is told, what it makes of it, and what it says of that."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferbus_worker.settings.worker import Settings
from support.inferbus import PROGRAM, environment
from support.mosquitto import Mosquitto, mosquitto_pub
from support.waiting import until


def serve(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(**variables),
        check=False,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "inferbus.yaml"
    path.write_text("workers: 4\nprojects:\n  robots: {thinking: off}\npassword: hunter2\nusername: me\n")
    return path


class TestCheckConfig:
    """`--check-config` starts nothing: no broker is there, and no model."""

    def test_prints_what_is_in_force_and_where_it_stands(self, file: Path) -> None:
        variables = {"INFERBUS_QUEUE_SIZE": "50", "MQTT_HOST": "broker.example"}
        run = serve("--check-config", "--config", str(file), "--stats-interval", "1m", **variables)
        assert run.returncode == 0, run.stderr
        lines = run.stdout.splitlines()
        assert f"workers: 4  # {file}, line 1" in lines
        assert f"projects:  # {file}, line 2" in lines
        assert "queue_size: 50  # INFERBUS_QUEUE_SIZE" in lines
        assert "broker: mqtt://broker.example:1883  # MQTT_HOST" in lines
        assert "stats_interval: 1m  # the command line" in lines
        assert "rate_limit: 10/60s" in lines or "rate_limit: 10/1m" in lines
        assert "max_history_bytes: 256 MiB" in lines

    def test_prints_what_is_a_configuration_file_itself(self, file: Path) -> None:
        run = serve("--check-config", "--config", str(file))
        file.write_text(run.stdout)
        assert Settings.load({}, file) == Settings.load(yaml.safe_load(run.stdout))
        assert Settings.load({}, file).projects["robots"].thinking == "off"

    def test_shows_no_secret(self, file: Path) -> None:
        run = serve("--check-config", "--config", str(file), INFERBUS_PASSWORD="hunter3")  # noqa: S106 - nobody's
        assert run.returncode == 0
        assert "hunter" not in run.stdout + run.stderr
        assert "password: '**********'  # INFERBUS_PASSWORD" in run.stdout

    @pytest.mark.slow
    def test_says_what_goes_to_vllm(self) -> None:
        run = serve("demo", "--check-config", "--max-model-len", "8192")
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith("# MODEL: demo\n# for vLLM: --max-model-len 8192\n")

    @pytest.mark.parametrize(
        ("text", "arguments", "words"),
        [
            ("workers: many", (), "inferbus.yaml, line 1: workers: must be a whole number"),
            ("", ("--workers", "0"), "workers: must be at least 1"),
            ("", ("--worker-id", "a/b"), "worker_id: must match ^[A-Za-z0-9_.-]{1,64}$"),
            ("", ("--engine", "simulated", "--wrokers", "3"), "no such option: --wrokers; is --workers meant?"),
            (
                "",
                ("--engine", "simulated", "--dtype", "half"),
                "no such option: --dtype; the simulated engine takes none",
            ),
            ("password_file: nowhere", ("--username", "ann"), "cannot read the password file"),
            ("ack: after-reply\nrequest_qos: 0", (), "--ack after-reply needs --request-qos 1"),
        ],
    )
    def test_ends_with_2_and_a_sentence(self, file: Path, text: str, arguments: tuple[str, ...], words: str) -> None:
        file.write_text(text)
        run = serve("--check-config", "--config", str(file), *arguments)
        assert (run.returncode, run.stdout) == (2, "")
        assert words in run.stderr
        assert "Traceback" not in run.stderr

    def test_names_variables_that_nothing_reads(self) -> None:
        variables = {"INFERBUS_QUEUE_SICE": "5", "inferbus_wrokers": "5", "INFERBUS_TIMEOUT": "5s", "INFERBUS_XYZ": ""}
        run = serve("--check-config", **variables)
        assert run.returncode == 0
        said = run.stderr.splitlines()
        assert "inferbus: nothing reads INFERBUS_QUEUE_SICE; is INFERBUS_QUEUE_SIZE meant?" in said
        assert "inferbus: nothing reads inferbus_wrokers; is INFERBUS_WORKERS meant?" in said
        assert "inferbus: nothing reads INFERBUS_XYZ" in said
        assert not any("INFERBUS_TIMEOUT" in line for line in said)  # the client's

    def test_names_what_has_no_effect(self, file: Path) -> None:
        file.write_text("session_expiry: 2h\nsimulated_capacity: 3\n")
        said = serve("--check-config", "--config", str(file)).stderr
        assert "--session-expiry has no effect without --ack after-reply" in said
        assert "--simulated-capacity has no effect without --engine simulated" in said
        assert serve("--check-config").stderr == ""


def test_the_same_is_warned_of_at_the_start(start_worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERBUS_QUEUE_SICE", "5")
    worker = start_worker(project="warned", session_expiry="2h")
    assert "nothing reads INFERBUS_QUEUE_SICE; is INFERBUS_QUEUE_SIZE meant?" in worker.log
    assert "--session-expiry has no effect without --ack after-reply" in worker.log


def test_a_serve_without_a_model_says_which_it_wants() -> None:
    run = serve()
    assert run.returncode == 2
    assert "which model?" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--backend", "ollama", "--ulr", "http://127.0.0.1:1", "phi"), "no such option: --ulr; is --url meant?"),
        (("--backend", "openai", "--api-key", "k", "gpt"), "no such option: --api-key; is --api-key-env meant?"),
        (("--backend", "ollama", "--max-model-len", "9", "phi"), "no such option: --max-model-len; --backend ollama"),
        (("--queu-size", "9", "demo"), "before --queu-size, which is taken for vLLM's; is --queue-size meant?"),
        (("--max-model-len", "9", "demo"), "before --max-model-len, which is taken for vLLM's."),
    ],
)
def test_an_option_that_has_taken_the_model_in_is_named(arguments: tuple[str, ...], words: str) -> None:
    run = serve(*arguments)
    assert run.returncode == 2
    assert words in run.stderr


@pytest.mark.slow
def test_a_check_says_that_the_model_stands_before_options_of_vllm() -> None:
    run = serve("--max-model-len", "4096", "demo", "--check-config")
    assert run.returncode == 2
    assert "unexpected argument: demo; MODEL stands before any option of vLLM" in run.stderr


def test_on_a_console_the_stats_are_a_line(broker: Mosquitto, start_worker: Any) -> None:
    worker = start_worker(project="console", log_format="console", stats_interval="200ms", queue_size=1000)
    mosquitto_pub(broker, "console/user_input", '{"sessionId": "s"}')
    # The answer last: how long it took stands in the line of its own interval alone.
    mosquitto_pub(broker, "console/user_input", '{"sessionId": "s", "message": "hello"}')

    def stats() -> list[str]:
        return [line for line in worker.log.splitlines() if "1 answered" in line and "1 refused" in line]

    line = until(stats)[0]
    assert "0/1000 queued" in line
    assert re.search(r"p95 \d+", line)
    assert "{" not in line
    assert len(line) < 200
