"""`inferbus ask`, `status` and `doctor` as a script sees them: output, errors, exit statuses."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from inferbus_client.contract.presence import Latency, Presence, Stats
from inferbus_client.contract.topics import presence as presence_topic
from inferbus_client.contract.topics import stats as stats_topic
from support.fake_worker import FakeWorker, Wait, WaitForCancel, accepted, delta, done, error
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto, mosquitto_pub
from support.terminal import in_terminal
from support.waiting import until


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    """The options that lead to the fake worker."""
    return ("--broker", broker.url, "--project", fake_worker.project)


def test_the_answer_and_nothing_else(way: tuple[str, ...]) -> None:
    run = inferbus("ask", *way, "hello there")
    assert (run.returncode, run.stdout, run.stderr) == (0, "You said: hello there\n", "")


def test_standard_input(way: tuple[str, ...]) -> None:
    assert inferbus("ask", *way, "-", stdin="two\nlines").stdout == "You said: two\nlines\n"


def test_the_replys_fields(way: tuple[str, ...]) -> None:
    fields = json.loads(inferbus("ask", *way, "--json", "--session", "s1", "hi").stdout)
    assert (fields["text"], fields["sessionId"], fields["finishReason"]) == ("You said: hi", "s1", "stop")
    assert fields["usage"] == {"promptTokens": 3, "completionTokens": 3}
    assert 0 < fields["firstTokenMs"] <= fields["totalMs"]  # as in `timing`, but seen from here
    assert not [name for name in fields if name.endswith("S")]


def test_a_stream_prints_the_same_text_even_if_parts_are_lost(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), delta("a "), delta("b ", copies=0), delta("c"), done("a b c")]
    assert inferbus("ask", *way, "--stream", "x").stdout == "a b c\n"
    lines = [json.loads(line) for line in inferbus("ask", *way, "--stream", "--json", "x").stdout.splitlines()]
    assert [line.get("delta") for line in lines] == ["a ", "b c", None]
    assert (lines[-1]["text"], lines[-1]["lost"]) == ("a b c", 1)


def test_half_an_answer_in_a_pipe_is_what_came_of_it(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), delta("half an "), error("engine_error")]
    run = inferbus("ask", *way, "--stream", "x")
    assert (run.returncode, run.stdout, run.stderr) == (1, "half an ", "inferbus: Error: The model failed to answer.\n")
    assert "half an \ninferbus: Error" in in_terminal("ask", *way, "x").text


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--max-tokens=0", "--max-tokens: must be at least 1."),
        ("--top-p=0", "--top-p: must be more than 0."),
        ("--temperature=-1", "--temperature: must be at least 0."),
        ("--param=top_k=-5", "--param top_k: must be at least -1."),
    ],
)
def test_an_option_that_cannot_be_meant_is_called_by_its_name(option: str, words: str) -> None:
    for verb in (("ask", "x"), ("chat", "-q", "x"), ("stress",)):
        run = inferbus(*verb, option)
        assert (run.returncode, run.stderr.splitlines()[-1]) == (2, f"Error: {words}")


def test_an_empty_question_is_none() -> None:
    for verb in (("ask", " "), ("chat", "-q", ""), ("chat", "-q", "x", "-q", " ")):
        run = inferbus(*verb)
        assert run.returncode == 2, verb
        assert "there is nothing to ask: the text is empty." in run.stderr


def test_options_travel(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    options = ("--temperature", "0", "--max-tokens", "9", "--system-prompt", "Be brief.", "--param", "seed=4")
    inferbus("ask", *way, *options, "-W", "5s", "-i", "my-device", "-q", "0", "x")
    heard = fake_worker.heard[-1]
    assert (heard["temperature"], heard["maxTokens"], heard["systemPrompt"]) == (0, 9, "Be brief.")
    assert (heard["params"], heard["clientId"]) == ({"seed": 4}, "my-device")
    assert 0 < heard["deadlineMs"] <= 5000


def test_a_failure(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [error("engine_error")]
    run = inferbus("ask", *way, "x")
    assert (run.returncode, run.stdout, run.stderr) == (1, "", "inferbus: Error: The model failed to answer.\n")
    fields = json.loads(inferbus("ask", *way, "--json", "x").stdout)
    assert (fields["error"]["code"], fields["error"]["status"]) == ("engine_error", 500)


@pytest.mark.slow
def test_timeouts(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), Wait(5)]
    assert inferbus("ask", *way, "-W", "300ms", "x").returncode == 5
    fake_worker.script = lambda _: [error("deadline_exceeded")]
    assert inferbus("ask", *way, "x").returncode == 5
    nobody = inferbus("ask", way[0], way[1], "--project", "nobody", "--first-timeout", "200ms", "x")
    assert nobody.returncode == 5
    assert "inferbus doctor" in nobody.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "100ms", "x"), 3, "cannot reach the broker"),
        (("--broker", "http://127.0.0.1", "x"), 2, "mqtt://"),
        (("--timeout", "soon", "x"), 2, "duration"),
        (("--param", "seed", "x"), 2, "NAME=VALUE"),
        (("--param", "topk=1", "x"), 2, "--param topk: there is none; there are stop, seed, top_k, min_p,"),
        (("--broker", "mqtts://127.0.0.1:1", "--cafile", "/no/ca.crt", "x"), 3, "there is no file /no/ca.crt (cafile)"),
        (("--temperature", "7", "x"), 2, "temperature: must be at most 2."),
        ((" ",), 2, "nothing to ask"),
        (("--config", "/nowhere.yaml", "x"), 2, "/nowhere.yaml"),
        ((), 2, "TEXT"),
        (("--no-such-option", "x"), 2, "--no-such-option"),
    ],
)
def test_what_is_wrong_is_said_in_words(arguments: tuple[str, ...], status: int, words: str) -> None:
    run = inferbus("ask", *arguments)
    assert run.returncode == status
    assert words in run.stderr
    assert "Traceback" not in run.stderr


def test_ctrl_c_cancels_and_says_130(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), WaitForCancel()]
    process = subprocess.Popen([PROGRAM, "ask", *way, "x"], env=environment(), stderr=subprocess.PIPE, text=True)
    until(lambda: fake_worker.heard)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    until(lambda: len(fake_worker.cancels) == 1)


def announce(broker: Mosquitto, worker: str, state: str, project: str) -> None:
    presence = Presence.model_validate({"worker": worker, "state": state, "model": "tiny", "projects": [project]})
    mosquitto_pub(broker, presence_topic(worker), presence.encode(), "-r")


@pytest.mark.slow
def test_status_shows_what_workers_say(own_broker: Mosquitto) -> None:
    way = ("--broker", own_broker.url, "--once")
    assert inferbus("status", *way).returncode == 1
    announce(own_broker, "w1", "ready", "general")
    announce(own_broker, "w2", "offline", "other")
    run = inferbus("status", *way)
    assert run.returncode == 0
    assert [line.split()[:2] for line in run.stdout.splitlines() if " w" in line][1:] == [
        ["w1", "ready"],
        ["w2", "offline"],
    ]
    fields = json.loads(inferbus("status", *way, "--json").stdout)
    assert (fields["w1"]["presence"]["state"], fields["w2"]["presence"]["projects"]) == ("ready", ["other"])


@pytest.mark.parametrize(("worker", "status"), [("w1", 0), ("w2", 1), ("w3", 1), ("+", 2)])
def test_status_of_one_worker(own_broker: Mosquitto, worker: str, status: int) -> None:
    """What a health check asks: is mine ready, whatever the others are."""
    announce(own_broker, "w1", "ready", "general")
    announce(own_broker, "w2", "offline", "other")
    run = inferbus("status", "--broker", own_broker.url, "--once", "--worker", worker, "--json")
    assert run.returncode == status
    assert set(json.loads(run.stdout or "{}")) == {worker} & {"w1", "w2"}


def test_status_follows_the_stats(own_broker: Mosquitto) -> None:
    announce(own_broker, "w1", "ready", "general")
    stats = Stats(worker="w1", processed=41, latency_ms=Latency(p50=12.0))
    command = [PROGRAM, "status", "--broker", own_broker.url, "--json"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = (json.loads(line).get("w1") for line in process.stdout)  # at first nobody may have said anything
            assert next(filter(None, said))["stats"] is None
            mosquitto_pub(own_broker, stats_topic("w1"), stats.encode())
            assert next(filter(None, said))["stats"]["processed"] == 41
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()


def checks(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    run = inferbus("doctor", "--json", *arguments)
    results = [json.loads(line) for line in run.stdout.splitlines()]
    return run.returncode, {result["name"]: result for result in results}


def test_doctor_finds_the_way_open(broker: Mosquitto, fake_worker: FakeWorker, way: tuple[str, ...]) -> None:
    announce(broker, "doctor-test", "ready", fake_worker.project)
    status, found = checks(*way)
    assert {name: found[name]["verdict"] for name in ("broker", "round trip", "worker", "first answer")} == {
        "broker": "ok",
        "round trip": "ok",
        "worker": "ok",
        "first answer": "ok",
    }
    # An installed worker adds checks of this machine, which may lack what an engine needs.
    assert status == int(any(result["verdict"] == "failed" for result in found.values()))
    mosquitto_pub(broker, presence_topic("doctor-test"), None, "-r")


def test_doctor_says_that_nobody_serves(broker: Mosquitto) -> None:
    status, found = checks("--broker", broker.url, "--project", "nobody-here", "--first-timeout", "200ms")
    assert status == 1
    assert found["worker"]["verdict"] == "warning"
    assert found["first answer"]["verdict"] == "failed"


def test_doctor_says_that_the_broker_is_away() -> None:
    status, found = checks("--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "100ms")
    assert status == 3
    assert "cannot reach" in found["broker"]["text"]
