"""`inferbus doctor` against brokers that are wrong in every way that a newcomer meets, each with its remedy."""

from __future__ import annotations

import http.server
import json
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.fleet import checks
from inferbus_client.fleet.checks import check_connection
from inferbus_client.settings.client import ClientSettings
from support.fake_worker import FakeWorker
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import HOST, Mosquitto
from support.needs import needs_program
from support.pki import Authority, Pair
from support.terminal import in_terminal

StartWorker = Callable[..., Any]


class Listener(Mosquitto):
    """A Mosquitto whose one listener has these lines."""

    def __init__(self, *lines: str, anonymous: bool = True) -> None:
        super().__init__()
        self._more = (f"allow_anonymous {str(anonymous).lower()}", *lines)

    def _lines(self) -> list[str]:
        # Mosquitto 2.0 ends where WebSockets are all that it is to listen to; a socket file is something else.
        self._config = (f"listener {self.port} {HOST}", *self._more, f"listener 0 {self.folder / 'socket'}")
        return super()._lines()


def with_tls(pair: Pair, *lines: str) -> Listener:
    return Listener(*pair.server_config, *lines)


def found(*arguments: str, **variables: str) -> tuple[int, dict[str, dict[str, str]]]:
    run = subprocess.run(
        [PROGRAM, "doctor", "--json", "--connect-timeout", "500ms", *arguments],
        capture_output=True,
        env=environment(**variables),
        timeout=60,
        check=False,
    )
    assert not run.stderr, run.stderr
    results = [json.loads(line) for line in run.stdout.splitlines()]
    return run.returncode, {result["name"]: result for result in results}


def remedy(broker: str, **settings: object) -> str:
    """What to do about a broker that does not take us."""
    result = check_connection(ClientSettings.load({"broker": broker, "connect_timeout": 0.5, **settings}))
    assert result.verdict == "failed", result
    return result.remedy


def password(text: str) -> dict[str, str]:
    return {"password": text}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_broker(authority: Authority) -> Iterator[Mosquitto]:
    with with_tls(authority.server()) as broker:
        yield broker


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """It knows anna, and her password."""
    passwords = tmp_path_factory.mktemp("strict") / "passwords"
    command = [needs_program("mosquitto_passwd"), "-b", "-c", str(passwords), "anna", "right"]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    with Listener(f"password_file {passwords}", anonymous=False) as broker:
        yield broker


class TestTheLogin:
    def test_none(self, strict: Mosquitto) -> None:
        assert "It wants a login: give --username" in remedy(strict.url)

    def test_no_password(self, strict: Mosquitto) -> None:
        assert "No password was given for anna" in remedy(strict.url, username="anna")

    def test_a_wrong_one(self, strict: Mosquitto) -> None:
        for version in ("5", "3.1.1"):
            words = remedy(strict.url, username="anna", mqtt_version=version, **password("wrong"))
            assert "Look at the user anna and its password" in words

    def test_the_right_one(self, strict: Mosquitto) -> None:
        given = ("--broker", strict.url, "-u", "anna", "--first-timeout", "100ms")
        _, results = found(*given, INFERBUS_PASSWORD=secrets.token_hex())
        assert results["broker"]["verdict"] == "failed"
        assert "password *** (INFERBUS_PASSWORD)" in results["settings"]["text"]
        right = ClientSettings.load({"broker": strict.url, "username": "anna", **password("right")})
        assert check_connection(right).verdict == "ok"


class TestTheWayThere:
    def test_a_host_that_nobody_knows(self) -> None:
        assert "Nobody here knows a host nowhere.invalid" in remedy("mqtt://nowhere.invalid")

    def test_a_port_where_nobody_listens(self) -> None:
        assert "Nobody listens on port 1 of 127.0.0.1" in remedy("mqtt://127.0.0.1:1")

    def test_a_port_that_speaks_something_else(self) -> None:
        with http.server.ThreadingHTTPServer((HOST, 0), http.server.SimpleHTTPRequestHandler) as web:
            threading.Thread(target=web.serve_forever, daemon=True).start()
            assert "A web server answers on port" in remedy(f"mqtt://{HOST}:{web.server_port}")
            status, results = found("--broker", f"ws://{HOST}:{web.server_port}/nope")
            words = "A web server answers there, and says 404 to /nope: give the broker's path"
            assert words in results["broker"]["remedy"]
            assert status == 3
            web.shutdown()

    @pytest.mark.slow
    def test_a_port_that_says_nothing(self) -> None:
        """There is nothing more to say than that."""
        with socket.create_server((HOST, 0)) as silent:
            assert not remedy(f"mqtt://{HOST}:{silent.getsockname()[1]}")

    def test_websockets_where_there_are_none(self, broker: Mosquitto) -> None:
        _, results = found("--broker", f"ws://{HOST}:{broker.port}")
        assert "No WebSockets are spoken" in results["broker"]["remedy"]

    def test_no_websockets_where_there_are(self) -> None:
        with Listener("protocol websockets") as web:
            assert "A web server answers on port" in remedy(web.url)


class TestTls:
    def test_plain_where_tls_is_spoken(self, tls_broker: Mosquitto) -> None:
        assert f"TLS is spoken on port {tls_broker.port}: use mqtts://" in remedy(tls_broker.url)

    def test_tls_where_plain_is_spoken(self, broker: Mosquitto) -> None:
        assert "No TLS is spoken on port" in remedy(f"mqtts://localhost:{broker.port}")

    def test_no_authority(self, tls_broker: Mosquitto) -> None:
        words = remedy(f"mqtts://localhost:{tls_broker.port}")
        assert "give the broker's own with --cafile" in words

    def test_another_authority(self, tls_broker: Mosquitto, tmp_path: Path) -> None:
        stranger = Authority(tmp_path, "stranger")
        words = remedy(f"mqtts://localhost:{tls_broker.port}", cafile=stranger.cert)
        assert "It was not signed by what is in" in words

    def test_another_name(self, authority: Authority) -> None:
        with with_tls(authority.server("broker.example.org")) as broker:
            words = remedy(f"mqtts://localhost:{broker.port}", cafile=authority.cert)
        assert "for another name than localhost" in words

    def test_an_expired_certificate(self, authority: Authority) -> None:
        with with_tls(authority.server(expired=True)) as broker:
            words = remedy(f"mqtts://localhost:{broker.port}", cafile=authority.cert)
        assert "not valid at this time" in words

    def test_a_broker_that_wants_a_certificate(self, authority: Authority, tmp_path: Path) -> None:
        with with_tls(authority.server(), f"cafile {authority.cert}", "require_certificate true") as broker:
            url = f"mqtts://localhost:{broker.port}"
            assert "give --cert and --key" in remedy(url, cafile=authority.cert)
            pair = Authority(tmp_path, "stranger").client()
            words = remedy(url, cafile=authority.cert, cert=pair.cert, key=pair.key)
            assert "of an authority that it trusts" in words

    def test_files(self, tls_broker: Mosquitto, authority: Authority, tmp_path: Path) -> None:
        scrap = tmp_path / "scrap"
        scrap.write_text("scrap")
        one, other = authority.client(), authority.client()
        for files, words in (
            ({"cafile": tmp_path / "none"}, "there is no such file"),
            ({"cafile": tmp_path}, "it cannot be read (Is a directory)"),
            ({"cafile": scrap}, "it holds no certificate in PEM form"),
            ({"cafile": authority.cert, "cert": one.cert, "key": other.key}, "do not make a pair"),
            ({"cafile": authority.cert, "cert": one.cert}, "--key are missing"),
            ({"cafile": authority.cert, "cert": one.cert, "key": tmp_path / "none"}, "there is no such file"),
        ):
            assert words in remedy(f"mqtts://localhost:{tls_broker.port}", **files)


@dataclass(frozen=True)
class Said:
    """What a worker says of itself, what is wrong then, and what to do about it."""

    fields: dict[str, object]
    options: tuple[str, ...]
    text: str
    remedy: str


class TestTheWorker:
    @pytest.mark.parametrize(
        "said",
        [
            Said(
                {"projects": ["other"]}, (), "no worker serves general; those on this broker serve other", "--project"
            ),
            Said({"state": "loading"}, (), "w1 is loading", "Wait until it is ready"),
            Said(
                {"state": "loading", "models": {"phi": "unavailable"}},
                (),
                "w1 is loading, and none of its models answers",
                "The worker's log says why",
            ),
            Said({"state": "offline"}, (), "w1 is offline", "Start it again"),
            Said({"identity": "topic"}, (), "with the user in the topics (general/users/…)", "Give --identity topic"),
            Said(
                {"identity": "none"},
                ("--identity", "topic", "--user", "anna"),
                "without a user in the topics",
                "Leave --identity out",
            ),
        ],
        ids=lambda said: said.text[:30],
    )
    def test_one_that_does_not_serve_us(self, own_broker: Mosquitto, said: Said) -> None:
        with FakeWorker(own_broker.port, project="elsewhere") as worker:
            fields = {"worker": "w1", "state": "ready", "model": "tiny", "projects": ["general"], **said.fields}
            worker.publish(topics.presence("w1"), Presence.model_validate(fields).encode(), retain=True)
            status, results = found("--broker", own_broker.url, "--first-timeout", "100ms", *said.options)
        assert status == 1
        assert results["worker"]["verdict"] == "warning"
        assert said.text in results["worker"]["text"]
        assert said.remedy in results["worker"]["remedy"]
        assert "no worker serves" in results["first answer"]["remedy"]

    def test_a_real_one_says_which_topics_it_serves(self, own_broker: Mosquitto, start_worker: StartWorker) -> None:
        start_worker(broker=own_broker, identity="topic")
        _, results = found("--broker", own_broker.url, "--first-timeout", "100ms")
        assert "Give --identity topic" in results["worker"]["remedy"]
        _, results = found("--broker", own_broker.url, "--identity", "topic", "--user", "anna")
        assert results["first answer"]["verdict"] == "ok"


def test_settings_are_those_in_force_and_say_where_they_come_from(broker: Mosquitto, tmp_path: Path) -> None:
    file = tmp_path / "client.yaml"
    file.write_text("retries: 1\nproject: nobody\n")
    _, results = found(
        *("--config", str(file), "--first-timeout", "100ms"),
        INFERBUS_PROJECT="robots",
        MQTT_HOST=HOST,
        MQTT_PORT=str(broker.port),
        INFERBUS_WORKERS="3",
        INFERBUS_TIMEOT="3",
    )
    text = results["settings"]["text"]
    for said in (
        f"broker {broker.url} (MQTT_HOST and MQTT_PORT)",
        "project robots (INFERBUS_PROJECT)",
        f"retries 1 ({file}, line 1)",
        "first_timeout 100ms (--first-timeout)",
        "the others are defaults",
    ):
        assert said in text
    assert "workers 3 (INFERBUS_WORKERS)" in results["serve here"]["text"]
    assert results["environment"]["text"] == "nothing reads INFERBUS_TIMEOT; is INFERBUS_TIMEOUT meant?"


def test_a_port_of_mosquittos_stands_in_its_variable_and_not_in_the_file(broker: Mosquitto, tmp_path: Path) -> None:
    file = tmp_path / "client.yaml"
    file.write_text(f"broker: mqtt://{HOST}\n")
    _, results = found("--config", str(file), "--first-timeout", "100ms", MQTT_PORT=str(broker.port))
    assert f"broker {broker.url} (MQTT_PORT)" in results["settings"]["text"]


def test_a_password_of_the_command_line_stands_in_the_option_that_there_is(broker: Mosquitto) -> None:
    _, results = found("--broker", broker.url, "-u", "ann", "-P", "hunter2", "--first-timeout", "100ms")
    assert "password *** (-P)" in results["settings"]["text"]


def test_where_the_client_is_alone_only_its_own_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INFERBUS_TIMEOUT", "INFERBUS_QUEUE_SIZE"):
        monkeypatch.setenv(name, "3s")
    assert list(checks.check_environment()) == []  # the worker's check knows more variables than we do
    monkeypatch.setattr(checks, "entry_points", lambda group: ())  # noqa: ARG005 - by its name
    assert [found.text for found in checks.check_environment()] == ["nothing reads INFERBUS_QUEUE_SIZE"]


def test_a_pipe_gets_a_line_for_each_finding_and_a_terminal_what_fits() -> None:
    way = ("--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "500ms")
    lines = inferbus("doctor", *way).stdout.splitlines()
    assert all(line.startswith(("     ", "ok   ", "warn ", "FAIL ")) for line in lines)
    assert any("refused. Nobody listens on port 1" in line for line in lines)
    seen = in_terminal("doctor", *way, env={"NO_COLOR": "1"})
    assert max(map(len, seen.text.splitlines())) <= 80


def test_other_verbs_send_people_here() -> None:
    run = inferbus("ask", "--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "500ms", "x")
    assert run.stderr.endswith("Connection refused. `inferbus doctor` says what to do about it.\n")
