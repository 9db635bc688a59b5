"""An example that streams, where another worker of a group begins a request anew."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.example_bus import copy
from support.fake_worker import Act, FakeWorker, Say, Script, accepted, begun_anew, delta, done
from support.inferbus import environment
from support.mosquitto import Mosquitto
from support.needs import needs_program
from support.node import with_packages

pytestmark = pytest.mark.timeout(700)  # npm may have to install what the tests need


def taken_over(_request: object) -> Iterable[Act]:
    again = list(begun_anew(delta("uno "), delta("dos"), done("uno dos")))
    late = [Say({**delta("late").fields, "seq": 2}), Say({**done("one late").fields, "seq": 3})]
    return [accepted(), delta("one "), *again[:2], *late, *again[2:]]


def accepted_late(_request: object) -> Iterable[Act]:
    said = [delta("one "), Say({**accepted().fields, "worker": "gpu-1"}), delta("two"), done("one two")]
    return [Say({**say.fields, "seq": seq}) for say, seq in zip(said, (1, 0, 2, 3), strict=True)]


@pytest.mark.parametrize(
    ("script", "shown"), [(taken_over, "one \nuno dos\n"), (accepted_late, "one two\n")], ids=["taken over", "late"]
)
def test_node_shows_one_answer(tmp_path: Path, own_broker: Mosquitto, script: Script, shown: str) -> None:
    command = [needs_program("node"), str(copy("node", tmp_path, with_packages()) / "ask.mjs"), "hello", "node"]
    with FakeWorker(own_broker.port, script):
        env = environment(INFERBUS_BROKER=own_broker.url, INFERBUS_TIMEOUT="20")
        run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=100, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, shown, "")
