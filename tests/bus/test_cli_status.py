"""`inferbus status` and `inferbus forget` on a real broker, with real workers and what others have left behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pexpect
import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.exits import Exit
from support.inferbus import PROGRAM, environment, inferbus
from support.listener import Listener
from support.mosquitto import Mosquitto, mosquitto_pub, mosquitto_rr, mosquitto_sub
from support.terminal import in_terminal
from support.waiting import PATIENCE, until
from support.worker import WorkerProcess

OPTIONS: dict[str, Any] = {"rate_limit": "off", "stats_interval": "1h"}


@pytest.fixture(scope="module")
def busy() -> Iterator[Mosquitto]:
    """Two workers, of which `one` has answered three requests; and one that has ended."""
    with (
        Mosquitto() as broker,
        WorkerProcess(broker, worker_id="one", project="one", **OPTIONS),
        WorkerProcess(broker, worker_id="two", project="two", **OPTIONS),
    ):
        for number in range(3):
            mosquitto_rr(broker, f"one/user_input/s{number}", f"one/assistant_response/s{number}/r", "hello there")
        announce(broker, "gone", "offline")
        yield broker


def announce(broker: Mosquitto, worker: str, state: str, **more: Any) -> None:
    presence = Presence.model_validate({"worker": worker, "state": state, **more})
    mosquitto_pub(broker, topics.presence(worker), presence.encode(), "-r")


def status(broker: Mosquitto, *arguments: str) -> subprocess.CompletedProcess[str]:
    return inferbus("status", "--broker", broker.url, *arguments)


class TestFigures:
    def test_are_there_at_once(self, busy: Mosquitto) -> None:
        """They came with the interval, up to a minute later; with --once never."""
        fields = json.loads(status(busy, "--once", "--json").stdout)
        assert fields["one"]["stats"]["processed"] == 3
        assert fields["one"]["stats"]["histograms"]["totalMs"]["buckets"]
        assert fields["two"]["stats"]["processed"] == 0
        assert fields["gone"]["stats"] is None

    def test_are_in_the_table(self, busy: Mosquitto) -> None:
        shown = status(busy, "--once")
        (row,) = [line.split() for line in shown.stdout.splitlines() if line.split()[:1] == ["one"]]
        assert "0/256" in row
        assert "0/1000" in row
        assert any(cell.endswith("ms") for cell in row)

    def test_of_all_workers_together_stand_below(self, busy: Mosquitto) -> None:
        shown = status(busy, "--once").stdout
        last = shown.strip().splitlines()[-1].split()
        assert last[:4] == ["all", "2", "0/512", "0/2000"]
        alone = status(busy, "--once", "--worker", "one").stdout
        assert "0/512" not in alone
        assert "two" not in alone

    def test_are_asked_for_again_and_again(self, busy: Mosquitto) -> None:
        command = [PROGRAM, "status", "--broker", busy.url, "--json", "--worker", "two"]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())["two"]["stats"]["uptimeS"]
            later = json.loads(process.stdout.readline())["two"]["stats"]["uptimeS"]
            assert 0.9 < later - first < 30
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == Exit.INTERRUPTED


class TestWhereNoLineCanBeTakenBack:
    """They showed nothing there until the end, and there is none."""

    def test_a_file_gets_the_table_and_another_when_something_changes(
        self, own_broker: Mosquitto, tmp_path: Path
    ) -> None:
        announce(own_broker, "first", "loading")
        command = [PROGRAM, "status", "--broker", own_broker.url]
        shown = tmp_path / "shown"
        with shown.open("w") as file, subprocess.Popen(command, env=environment(), stdout=file) as process:
            try:
                until(lambda: "first" in shown.read_text())
                announce(own_broker, "second", "offline")
                until(lambda: "second" in shown.read_text())
            finally:
                process.send_signal(signal.SIGINT)
            assert process.wait(60) == Exit.INTERRUPTED
        assert shown.read_text().count("first") == 2

    def test_a_dumb_terminal_gets_the_table_and_another_when_something_changes(self, own_broker: Mosquitto) -> None:
        announce(own_broker, "first", "loading")
        arguments = ["status", "--broker", own_broker.url]
        child = pexpect.spawn(PROGRAM, arguments, env=environment(TERM="dumb"), encoding="utf-8", timeout=60)
        child.expect("first")
        announce(own_broker, "second", "offline")
        child.expect("second")
        child.sendintr()
        assert "\x1b" not in str(child.read())
        child.close()

    def test_a_dumb_terminal_is_as_narrow_as_it_is(self, own_broker: Mosquitto) -> None:
        announce(own_broker, "first", "loading")
        seen = in_terminal("status", "--once", "--broker", own_broker.url, columns=40, env={"TERM": "dumb"})
        assert "first" in seen.text
        assert max(map(len, seen.text.splitlines())) <= 40


class TestNames:
    def test_of_a_worker_that_is_not_there(self, busy: Mosquitto) -> None:
        for arguments in (("--once",), ()):
            run = status(busy, "--worker", "nope", *arguments)
            assert run.returncode == Exit.FAILED
            assert run.stderr == "inferbus: there is no worker 'nope' on this broker; there are gone, one, two\n"

    def test_where_there_is_nobody(self, own_broker: Mosquitto) -> None:
        run = status(own_broker, "--once", "--worker", "nope")
        assert run.returncode == Exit.FAILED
        assert "there is no worker 'nope' on this broker, nor any other" in run.stderr

    def test_that_are_escape_sequences_are_shown_as_text(self, own_broker: Mosquitto) -> None:
        announce(own_broker, "evil", "ready", model="\x1b]0;owned\x07\x1b[2Jmodel\nforged line")
        mosquitto_pub(own_broker, "inferbus/workers/\u202eevil2/status", "no presence", "-r")
        for arguments in (("--once",), ("--once", "--json")):
            shown = status(own_broker, *arguments).stdout
            assert "owned" in shown
            assert not {"\x1b", "\x07", "\u202e"} & set(shown)
            assert not [line for line in shown.splitlines() if line.startswith("forged")]


def at_a_terminal(broker: Mosquitto, columns: int) -> list[str]:
    shown = pexpect.run(
        f"{PROGRAM} status --once --broker {broker.url}",
        encoding="utf-8",
        env={**environment(TERM="xterm")},
        dimensions=(60, columns),
        timeout=60,
    )
    return [line.rstrip() for line in re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", str(shown)).splitlines()]


WORKER = "a-worker-with-a-long-name.somewhere.example.org"
MODEL = "organisation/a-model-with-a-rather-long-name-of-its-own"


@pytest.fixture(scope="module")
def named() -> Iterator[Mosquitto]:
    """Two workers with long names."""
    with Mosquitto() as broker, WorkerProcess(broker, worker_id=WORKER, **OPTIONS):
        announce(broker, "other", "offline", model=MODEL)
        yield broker


class TestWidths:
    @pytest.mark.parametrize("columns", [40, 60, 80, 120])
    def test_a_narrow_terminal_folds_and_cuts_nothing(self, named: Mosquitto, columns: int) -> None:
        lines = at_a_terminal(named, columns)
        assert max(map(len, lines)) <= columns
        letters = "".join("".join(lines).split())
        for figure in ("active", "0/256", "queue", "0/1000", "tok/s", "errors"):
            assert figure in letters
        assert "…" not in letters
        for name in (WORKER, MODEL):
            assert is_spread_over(name, letters), name

    def test_a_pipe_gets_whole_lines(self, named: Mosquitto) -> None:
        shown = status(named, "--once").stdout
        for name, state in ((WORKER, "ready"), (MODEL, "offline")):
            assert [line for line in shown.splitlines() if name in line and state in line]


def is_spread_over(name: str, letters: str) -> bool:
    """Whether a name's letters come in order; other columns' may come between them where it is folded."""
    rest = iter(letters)
    return all(letter in rest for letter in name)


class TestForgetting:
    def test_a_worker_that_is_gone(self, own_broker: Mosquitto) -> None:
        announce(own_broker, "gone", "offline")
        announce(own_broker, "stays", "offline")
        assert inferbus("forget", "--broker", own_broker.url, "gone").returncode == 0
        assert set(json.loads(status(own_broker, "--once", "--json").stdout)) == {"stays"}

    @pytest.mark.slow
    def test_those_who_did_not_say_that_they_went(self, own_broker: Mosquitto) -> None:
        for state in ("ready", "loading"):
            announce(own_broker, f"crashed-{state}", state)
        mosquitto_pub(own_broker, topics.presence("odd"), "no presence", "-r")
        with ThreadPoolExecutor(3) as pool:  # each waits for an answer that does not come
            names = ("crashed-ready", "crashed-loading", "odd")
            runs = list(pool.map(lambda name: inferbus("forget", "--broker", own_broker.url, name), names))
        assert [(run.returncode, run.stderr) for run in runs] == [(0, "")] * 3
        assert json.loads(status(own_broker, "--once", "--json").stdout) == {}

    def test_one_that_somebody_else_forgets_meanwhile(self, own_broker: Mosquitto) -> None:
        announce(own_broker, "crashed", "ready")
        with Listener(own_broker, topics.stats_request("crashed")) as asked, ThreadPoolExecutor(1) as pool:
            run = pool.submit(inferbus, "forget", "--broker", own_broker.url, "crashed")
            asked.wait(1)
            mosquitto_pub(own_broker, topics.presence("crashed"), None, "-r")
            assert (run.result().returncode, run.result().stderr) == (0, "")

    @pytest.mark.slow
    def test_one_that_lives_is_refused_unless_it_is_forced(self, own_broker: Mosquitto) -> None:
        with WorkerProcess(own_broker, worker_id="alive", **OPTIONS):
            run = inferbus("forget", "--broker", own_broker.url, "alive")
            assert run.returncode == Exit.FAILED
            assert run.stderr == "inferbus: worker 'alive' lives: it answers; stop it first, or say --force\n"
            assert '"ready"' in mosquitto_sub(own_broker, topics.presence("alive"))
            assert inferbus("forget", "--broker", own_broker.url, "--force", "alive").returncode == 0
            assert json.loads(status(own_broker, "--once", "--json").stdout) == {}

    def test_nobody_else(self, busy: Mosquitto) -> None:
        run = inferbus("forget", "--broker", busy.url, "nope")
        assert run.returncode == Exit.FAILED
        assert "there is no worker 'nope' on this broker; there are gone, one, two" in run.stderr
        assert inferbus("forget", "--broker", busy.url, "a/b").returncode == Exit.USAGE

    def test_where_it_is_not_allowed(self, tmp_path: Path) -> None:
        rules = tmp_path / "rules"
        rules.write_text("topic read inferbus/#\nuser operator\ntopic readwrite inferbus/#\n")
        rules.chmod(0o600)
        with Mosquitto(f"acl_file {rules}") as broker:
            mosquitto_pub(
                broker,
                topics.presence("gone"),
                Presence(worker="gone", state="offline").encode(),
                "-r",
                "-u",
                "operator",
            )
            began = time.monotonic()
            run = inferbus("forget", "--broker", broker.url, "gone")
            assert run.returncode == Exit.BROKER
            assert "may this login publish to inferbus/workers/gone/status?" in run.stderr
            assert time.monotonic() - began < PATIENCE
            assert inferbus("forget", "--broker", broker.url, "-u", "operator", "gone").returncode == 0
