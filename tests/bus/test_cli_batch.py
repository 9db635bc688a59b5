"""`inferbus batch` against a scripted worker: the two formats, refusals, going on, and what it says."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Instance, Presence, State
from support.batch_files import read, request, texts, write
from support.fake_worker import Act, FakeWorker, Wait, WaitForCancel, accepted, begun_anew, done, error
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto
from support.needs import needs_module
from support.terminal import in_terminal
from support.waiting import PATIENCE, until
from support.worker import WorkerProcess


def said(request: Mapping[str, Any]) -> str:
    return str(request["messages"][-1]["content"])


def answer(request: Mapping[str, Any]) -> Iterable[Act]:
    return [accepted(), done(f"You said: {said(request)}", model=request.get("model"))]


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    fake_worker.script = answer
    return ("--broker", broker.url, "--project", fake_worker.project)


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str, str]:
    """The arguments that name the files."""
    return str(tmp_path / "requests.jsonl"), "-o", str(tmp_path / "answers.jsonl")


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, while it runs; at the latest at the end of this it does no more."""
    with subprocess.Popen([PROGRAM, *arguments], env=environment(), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def answers_in(folder: Path) -> Path:
    return folder / "answers.jsonl"


def errors_in(folder: Path) -> dict[str, dict[str, Any]]:
    return {one["custom_id"]: one["error"] for one in read(folder / "answers.errors.jsonl")}


def test_each_line_is_asked_and_its_answer_is_a_chat_completion(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    shape = {"type": "json_object"}
    full = request("full", "all of it", model="phi", temperature=0, max_completion_tokens=9, response_format=shape)
    write(Path(paths[0]), [request("plain", "Grüße"), "", full])
    run = inferbus("batch", *paths, *way)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    assert run.stderr.startswith("inferbus: 2 of 2 answered, 0 failed; ")
    assert texts(answers_in(tmp_path)) == {"plain": "You said: Grüße", "full": "You said: all of it"}
    heard = {said(one): one for one in fake_worker.heard}["all of it"]
    assert heard["params"] == {"response_format": shape}
    assert (heard["model"], heard["temperature"], heard["maxTokens"]) == ("phi", 0, 9)
    assert "message" not in heard
    record = next(one for one in read(answers_in(tmp_path)) if one["custom_id"] == "full")
    assert record.keys() == {"id", "custom_id", "response", "error"}
    assert (record["error"], record["response"]["status_code"]) == (None, 200)
    needs_module("openai")
    from openai.types.chat import ChatCompletion  # noqa: PLC0415 - the library alone is tested without it

    completion = ChatCompletion.model_validate(record["response"]["body"], strict=True)
    assert (completion.model, completion.choices[0].finish_reason) == ("phi", "stop")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.total_tokens) == (3, 8)
    assert not (tmp_path / "answers.errors.jsonl").exists()


def test_what_fails_stands_in_a_file_of_its_own_and_is_tried_again_the_next_time(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    write(
        Path(paths[0]),
        [
            request("fine"),
            request("many", n=3),
            request("hot", temperature=9),
            request("long", max_tokens=0),
            request("broken", "break"),
        ],
    )
    fake_worker.script = lambda one: [error("engine_error")] if said(one) == "break" else answer(one)
    run = inferbus("batch", *paths, *way)
    assert run.returncode == 1
    assert "1 of 5 answered, 4 failed" in run.stderr
    assert "answers.errors.jsonl" in run.stderr
    errors = errors_in(tmp_path)
    assert {name: one["code"] for name, one in errors.items()} == {
        **dict.fromkeys(("many", "hot", "long"), "invalid_request"),
        "broken": "engine_error",
    }
    assert errors["many"]["message"] == "Error: Invalid request. n: is not supported, but for 1."
    assert "max_tokens: must be at least 1." in errors["long"]["message"]
    first = [one["requestId"] for one in fake_worker.heard if said(one) == "break"]

    fake_worker.script = answer
    run = inferbus("batch", *paths, *way)
    assert "2 of 5 answered (1 before), 3 failed" in run.stderr
    assert sorted(errors_in(tmp_path)) == ["hot", "long", "many"]
    again = [one["requestId"] for one in fake_worker.heard if said(one) == "break"][-1]
    assert first[0] != again, "the worker would have told what it remembers"
    assert again.startswith(first[0])


def test_every_request_has_an_id_of_its_own_that_is_the_same_the_next_time(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    write(Path(paths[0]), [request(f"r{n}") for n in range(3)])
    for _ in range(2):
        assert inferbus("batch", *paths, *way).returncode == 0
        answers_in(tmp_path).unlink()
    ids = Counter((one["clientId"], one["sessionId"], one["requestId"]) for one in fake_worker.heard)
    assert list(ids.values()) == [2, 2, 2]
    other = (paths[0], "-o", str(tmp_path / "others.jsonl"))
    assert inferbus("batch", *other, *way).returncode == 0
    assert len({one["clientId"] for one in fake_worker.heard}) == 2


def test_what_has_an_answer_is_not_asked_again(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    lines = [request(f"r{n}") for n in range(4)]
    write(Path(paths[0]), lines[:2])
    inferbus("batch", *paths, *way)
    with answers_in(tmp_path).open("ab") as file:
        file.write(b'{"id": "batch_req_0123')
    write(Path(paths[0]), lines)
    run = inferbus("batch", *paths, *way)
    assert "4 of 4 answered (2 before)" in run.stderr
    assert len(texts(answers_in(tmp_path))) == len(fake_worker.heard) == 4
    run = inferbus("batch", *paths, "--broker", "mqtt://127.0.0.1:1")
    assert (run.returncode, len(fake_worker.heard)) == (0, 4), "with nothing left nobody is needed"


def test_ctrl_c_cancels_what_runs_and_the_same_command_goes_on(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    """The worker remembers that what was cancelled is cancelled: those are asked under another id."""
    write(Path(paths[0]), [request(f"r{n}", f"{n}") for n in range(10)])
    fake_worker.script = lambda one: answer(one) if int(said(one)) < 5 else [accepted(), WaitForCancel(20)]
    with started("batch", *paths, *way, "--concurrency", "3") as process:
        until(lambda: len(fake_worker.heard) == 8)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted; 5 of 10 answered, 0 failed, 5 left" in errors
    until(lambda: len(fake_worker.cancels) == 3)
    cancelled = {json.loads(payload)["requestId"] for _, payload in fake_worker.cancels}
    fake_worker.script = lambda one: [error("cancelled")] if one["requestId"] in cancelled else answer(one)
    run = inferbus("batch", *paths, *way)
    assert run.returncode == 0, run.stderr
    assert texts(answers_in(tmp_path)) == {f"r{n}": f"You said: {n}" for n in range(10)}


def test_a_refusal_makes_the_whole_batch_wait(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    total, pause = 60, 1.5
    write(Path(paths[0]), [request(f"r{n}") for n in range(total)])
    arrivals: list[float] = []

    def script(one: Mapping[str, Any]) -> Iterable[Act]:
        arrivals.append(time.monotonic())
        return [error("rate_limited", retry_after_ms=int(pause * 1000))] if len(arrivals) == 10 else answer(one)

    fake_worker.script = script
    run = inferbus("batch", *paths, *way, "--concurrency", "4")
    assert run.returncode == 0, run.stderr
    assert len(texts(answers_in(tmp_path))) == total
    assert len(arrivals) == total + 1
    waits = [after - before for before, after in pairwise(arrivals)]
    longest = max(range(9, len(waits)), key=waits.__getitem__)
    assert waits[longest] >= pause * 0.9
    assert len(waits) - longest > total / 2, "those under way may still arrive; then nobody does"


def test_a_real_limit_costs_time_and_no_answer(
    broker: Mosquitto, start_worker: Callable[..., WorkerProcess], paths: tuple[str, str, str], tmp_path: Path
) -> None:
    start_worker(project="limited-batch", client_rate_limit="10/1s")
    total = 40
    write(Path(paths[0]), [request(f"r{n}", f"{n}") for n in range(total)])
    run = inferbus("batch", *paths, "--broker", broker.url, "--project", "limited-batch", "--concurrency", "8")
    assert run.returncode == 0, run.stderr
    assert texts(answers_in(tmp_path)) == {f"r{n}": f"{n}" for n in range(total)}


def announce(
    fake_worker: FakeWorker, name: str, state: State, mark: str, capacity: int = 2, group: str | None = None
) -> None:
    presence = Presence(
        worker=name,
        state=state,
        model="a-model",
        projects=(fake_worker.project,),
        capacity=capacity,
        instance=Instance(mark=mark, started=1.0),
        group=group,
    )
    fake_worker.publish(topics.presence(name), presence.encode(), retain=True)


def test_a_worker_that_comes_back_is_sent_what_it_had_taken(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    write(Path(paths[0]), [request(f"r{n}") for n in range(6)])
    name = f"w-{fake_worker.project}"
    fake_worker.script = lambda _: [accepted()]
    announce(fake_worker, name, "ready", "first")
    with started("batch", *paths, *way) as process:
        until(lambda: len(fake_worker.heard) == 2)  # as many as it runs at once
        announce(fake_worker, name, "offline", "first")
        fake_worker.script = answer
        announce(fake_worker, name, "ready", "second")
        process.communicate(timeout=60)
    fake_worker.publish(topics.presence(name), b"", retain=True)
    assert process.returncode == 0
    assert len(texts(answers_in(tmp_path))) == 6
    assert sorted(Counter(one["requestId"] for one in fake_worker.heard).values()) == [1, 1, 1, 1, 2, 2]
    models = {one["response"]["body"]["model"] for one in read(answers_in(tmp_path))}
    assert models == {"a-model"}


def test_as_many_go_at_once_as_the_workers_run_that_are_there_by_then(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    write(Path(paths[0]), [request(f"r{n}") for n in range(10)])
    names = [f"{one}-{fake_worker.project}" for one in ("a", "b")]
    may_answer = Event()

    def late(request: Mapping[str, Any]) -> Iterator[Act]:
        yield accepted()
        assert may_answer.wait(PATIENCE)
        yield done(said(request))

    fake_worker.script = late
    with started("batch", *paths, *way) as process:
        for number, name in enumerate(names, start=1):
            announce(fake_worker, name, "ready", name, group="inferbus")
            until(lambda: len(fake_worker.heard) == 2 * number)  # noqa: B023
        may_answer.set()
        process.communicate(timeout=60)
    for name in names:
        fake_worker.publish(topics.presence(name), b"", retain=True)
    assert process.returncode == 0
    assert len(texts(answers_in(tmp_path))) == 10


def test_what_a_worker_of_a_group_had_taken_is_left_to_the_others(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    write(Path(paths[0]), [request(f"r{n}") for n in range(4)])
    names = [f"{one}-{fake_worker.project}" for one in ("a", "b", "c")]
    others_know = Event()

    def answered_by_another(request: Mapping[str, Any]) -> Iterator[Act]:
        yield accepted()
        assert others_know.wait(PATIENCE)
        yield Wait(1.5)  # in which it looks at the workers three times
        yield from begun_anew(done(said(request)))

    fake_worker.script = answered_by_another
    for name in names[:2]:
        announce(fake_worker, name, "ready", name, group="inferbus")
    with started("batch", *paths, *way) as process:
        until(lambda: len(fake_worker.heard) == 4)
        announce(fake_worker, names[0], "offline", names[0], group="inferbus")
        announce(fake_worker, names[2], "ready", names[2], group="inferbus")
        others_know.set()
        process.communicate(timeout=60)
    for name in names:
        fake_worker.publish(topics.presence(name), b"", retain=True)
    assert process.returncode == 0
    assert len(texts(answers_in(tmp_path))) == len(fake_worker.heard) == 4


def test_where_nobody_answers_it_ends_and_says_why(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str], tmp_path: Path
) -> None:
    write(Path(paths[0]), [request("a")])
    fake_worker.script = lambda _: [error("overloaded", retry_after_ms=100)]
    run = inferbus("batch", *paths, *way, "--patience", "1s")
    assert run.returncode == 5
    assert "no answer to any request (Server is overloaded. Please try again in a moment." in run.stderr
    assert not answers_in(tmp_path).exists()
    name = f"w-{fake_worker.project}"
    announce(fake_worker, name, "loading", "first")
    heard = len(fake_worker.heard)
    run = inferbus("batch", *paths, *way, "--patience", "1s")
    fake_worker.publish(topics.presence(name), b"", retain=True)
    assert run.returncode == 5
    assert f"{name} is loading" in run.stderr
    assert len(fake_worker.heard) == heard


def test_standard_input_and_output(way: tuple[str, ...], tmp_path: Path) -> None:
    lines = json.dumps(request("a", "hello")) + "\n"
    run = inferbus("batch", "-", "-o", "-", "--errors", str(tmp_path / "errors"), *way, stdin=lines)
    assert run.returncode == 0, run.stderr
    (record,) = (json.loads(line) for line in run.stdout.splitlines())
    assert record["response"]["body"]["choices"][0]["message"]["content"] == "You said: hello"


def test_the_model_that_the_command_names(
    way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str]
) -> None:
    write(Path(paths[0]), [request("a", model="gpt-4o-mini")])
    assert inferbus("batch", *paths, *way, "--model", "phi").returncode == 0
    assert [one["model"] for one in fake_worker.heard] == ["phi"]
    run = inferbus("batch", *paths, *way)
    assert run.returncode == 2
    assert "answers 'a', which" in run.stderr
    assert len(fake_worker.heard) == 1


def test_a_terminal_shows_a_bar(way: tuple[str, ...], fake_worker: FakeWorker, paths: tuple[str, str, str]) -> None:
    write(Path(paths[0]), [request(f"r{n}") for n in range(3)])
    fake_worker.script = lambda one: [accepted(), WaitForCancel(1.5), *list(answer(one))[1:]]
    seen = in_terminal("batch", *paths, *way, program=PROGRAM, env={"COLUMNS": "100"})
    assert seen.status == 0
    assert "0/3" in seen.text
    assert "3 of 3 answered" in seen.text


def test_an_output_that_takes_no_more(way: tuple[str, ...], paths: tuple[str, str, str], tmp_path: Path) -> None:
    write(Path(paths[0]), [request("a")])
    run = inferbus("batch", paths[0], "-o", "/dev/full", "--errors", str(tmp_path / "errors"), *way)
    assert run.returncode == 1
    assert "No space left on device" in run.stderr
    assert "Traceback" not in run.stderr
