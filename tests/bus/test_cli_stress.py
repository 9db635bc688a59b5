"""`inferbus stress`: its ledger equals what was injected."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.fake_worker import Act, FakeWorker, Wait, WaitForCancel, accepted, delta, done, error
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto
from support.waiting import until


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    """The options that lead to the fake worker."""
    return ("--broker", broker.url, "--project", fake_worker.project, "--num-warmups", "0")


FATES: Mapping[str, list[Act]] = {
    "answered": [accepted(), delta("a "), delta("b"), done("a b")],
    "gap": [accepted(), delta("a ", copies=0), delta("b"), done("a b")],
    "twice": [accepted(), delta("a b"), done("a b", copies=2)],
    "thrice": [accepted(), done("a b", copies=3)],
    "overloaded": [error("overloaded", retry_after_ms=10)],
    "rate_limited": [error("rate_limited")],
    "refused twice": [error("session_busy", copies=2)],
    "engine_error": [accepted(), error("engine_error")],
    "half": [accepted(), delta("a "), error("engine_error")],
    "deadline": [accepted(), error("deadline_exceeded")],
    "lost": [accepted(), delta("a b"), done("a b", copies=0)],
    "silent": [],
    "late": [accepted(), Wait(4), done("a b")],
}


@pytest.mark.parametrize("streaming", ["--stream", "--no-stream"])
@pytest.mark.slow
def test_the_ledger_equals_what_was_injected(way: tuple[str, ...], fake_worker: FakeWorker, streaming: str) -> None:
    kinds = list(FATES)
    injected: Counter[str] = Counter()

    def script(_request: Mapping[str, Any]) -> Iterable[Act]:
        # Every fate comes up equally often, whatever order the requests come in.
        fate = kinds[injected.total() % len(kinds)]
        injected[fate] += 1
        return FATES[fate]

    fake_worker.script = script
    load = ("--clients", "13", "--messages", "3", "-W", "3s", "--first-timeout", "3s", "--settle", "4s")
    run = inferbus("stress", *way, *load, streaming, "--json")
    (level,) = json.loads(run.stdout)["levels"]
    assert injected == dict.fromkeys(kinds, 3)
    assert level["sent"] == 39
    assert level["answered"] == 3 * 4
    assert level["refused"] == {"overloaded": 3, "rate_limited": 3, "session_busy": 3}
    assert level["failed"] == {"engine_error": 6, "deadline_exceeded": 3}
    assert (level["lost"], level["late"]) == (6, 3)
    assert level["duplicated"] == 3 * (1 + 2 + 1)
    assert level["gaps"] == 3
    assert level["unfinished"] == 0


def test_ten_clients_with_ten_messages_are_the_default(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    run = inferbus("stress", *way)
    assert run.returncode == 0
    assert "closed loop, 10 clients, 10 messages each" in run.stdout
    per_session = Counter(heard["sessionId"] for heard in fake_worker.heard)
    assert (len(per_session), set(per_session.values())) == (10, {10})
    assert all(len(line) <= 80 for line in run.stdout.splitlines())


def test_an_open_loop_sends_at_its_rate_in_sessions_of_their_own(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    run = inferbus("stress", *way, "--request-rate", "20", "--burstiness", "1000", "--duration", "5s", "--json")
    (level,) = json.loads(run.stdout)["levels"]
    assert level["answered"] == level["sent"] == pytest.approx(100, abs=10)
    assert len({heard["sessionId"] for heard in fake_worker.heard}) == level["sent"]


def test_a_sweep_ends_in_a_verdict(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    def script(_request: Mapping[str, Any]) -> Iterator[Act]:
        yield Wait(0.6)  # as long for one as for many at once: the perfect batch
        yield done("ok")

    fake_worker.script = script
    run = inferbus("stress", *way, "--messages", "2", "--sweep", "1,3,9")
    assert run.returncode == 0
    assert "The engine batches" in run.stdout.replace("\n", " ")
    assert all(len(line) <= 80 for line in run.stdout.splitlines())


def test_objectives_decide_the_exit_status(way: tuple[str, ...], fake_worker: FakeWorker, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    few = ("--clients", "2", "--messages", "2")
    met = inferbus("stress", *way, *few, "--max-p95", "30s", "--max-failed", "1%", "--result-filename", str(file))
    assert met.returncode == 0
    assert json.loads(file.read_text())["levels"][0]["answered"] == 4
    fake_worker.script = lambda _: [error("engine_error")]
    missed = inferbus("stress", *way, *few, "--max-failed", "1%")
    assert missed.returncode == 4
    assert "100.0% went unanswered" in missed.stderr
    assert inferbus("stress", *way, *few).returncode == 1


def test_ctrl_c_still_prints_the_table(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [accepted(), WaitForCancel(20)]
    command = [PROGRAM, "stress", *way, "--clients", "3", "--messages", "1", "--json"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        until(lambda: len(fake_worker.heard) == 3)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    (level,) = json.loads(output)["levels"]
    assert (process.returncode, level["sent"], level["unfinished"]) == (130, 3, 3)
    until(lambda: len(fake_worker.cancels) == 3)


def test_where_nobody_answers_it_says_who_finds_out_why(broker: Mosquitto) -> None:
    quick = ("--clients", "1", "--messages", "1", "--num-warmups", "0", "--first-timeout", "300ms")
    run = inferbus("stress", "--broker", broker.url, "--project", "nobody-serves", *quick)
    assert run.returncode == 1
    assert run.stderr == "inferbus: nobody has answered; `inferbus doctor` finds out why\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sweep", "1,0"), "numbers from 1"),
        (("--sweep", "1,2", "--request-rate", "5"), "does not go with"),
        (("--max-failed", "many"), "between 0% and 100%"),
        (("--ramp-up", "soon"), "duration"),
    ],
)
def test_wrong_options_are_said_in_words(arguments: tuple[str, ...], words: str) -> None:
    run = inferbus("stress", *arguments)
    assert run.returncode == 2
    assert words in run.stderr
