"""Models by name over the bus: which one answers, what stands in for it, and what is said where none can."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import StartWorker
from inferbus_client.contract import topics
from support.inferbus import inferbus
from support.listener import Listener
from support.models import ask_stats, models_file, presence_of, slots_of, stub_slot
from support.mosquitto import Mosquitto, free_port
from support.replies import Replies
from support.stub_backend import Fault, StubBackend
from support.waiting import until
from support.worker import WorkerProcess

SIMULATED: dict[str, Any] = {"engine": "simulated"}
#: A worker of which nobody wants to wait for the end.
OPTIONS: dict[str, Any] = {"rate_limit": "off", "drain_timeout": "0s", "log_level": "debug"}


def project_name() -> str:
    return f"models-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def project() -> str:
    return project_name()


@pytest.fixture
def replies(broker: Mosquitto, project: str) -> Iterator[Replies]:
    with Replies(broker, project) as replies:
        yield replies


@pytest.fixture(scope="module")
def names() -> dict[str, str]:
    return {kind: project_name() for kind in ("one", "two", "default")}


@pytest.fixture(scope="module")
def worker(
    broker: Mosquitto, names: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    models = {"ant": SIMULATED, "bee": SIMULATED, "cat": SIMULATED}
    projects = {
        names["one"]: {"model": "bee"},
        names["two"]: {"model": "bee", "models": ["cat"]},
        names["default"]: {"model": "ant", "models": ["ant", "bee", "cat"]},
    }
    file = models_file(tmp_path_factory.mktemp("names"), models, projects)
    with WorkerProcess(broker, config=file, **OPTIONS) as worker:
        yield worker


@pytest.mark.parametrize(
    ("kind", "asked", "answers"),
    [
        ("one", None, "bee"),
        ("one", "bee", "bee"),
        ("one", "ant", None),
        ("two", None, "bee"),
        ("two", "cat", "cat"),
        ("two", "ant", None),
        ("default", None, "ant"),
        ("default", "cat", "cat"),
        ("default", "dog", None),
    ],
)
def test_a_request_gets_the_model_that_it_names_if_its_project_allows_it(
    broker: Mosquitto,
    worker: WorkerProcess,
    names: dict[str, str],
    kind: str,
    asked: str | None,
    answers: str | None,
) -> None:
    assert worker.process.poll() is None
    with Replies(broker, names[kind]) as replies:
        end = replies.ask(model=asked) if asked else replies.ask()
    if answers is None:
        assert (end["type"], end["code"]) == ("error", "invalid_request")
        assert "bee" in end["message"]
        return
    assert (end["type"], end["model"]) == ("done", answers)


def test_presence_says_which_models_there_are(broker: Mosquitto, worker: WorkerProcess) -> None:
    with Listener(broker, topics.presence(worker.id)) as listener:
        listener.wait(1)
        assert presence_of(listener, worker.id)[-1].models == {"ant": "ready", "bee": "ready", "cat": "ready"}


def test_a_session_goes_on_with_another_model(broker: Mosquitto, worker: WorkerProcess, names: dict[str, str]) -> None:
    assert worker.process.poll() is None
    with Replies(broker, names["default"]) as replies:
        ends = [replies.ask(session="both", model=model) for model in ("ant", "cat")]
    assert [end["model"] for end in ends] == ["ant", "cat"]
    assert ends[1]["usage"]["promptTokens"] > ends[0]["usage"]["promptTokens"], "the history went along"


def test_the_one_line_form_serves_one_remote_model(
    broker: Mosquitto, start_worker: StartWorker, project: str, replies: Replies
) -> None:
    with StubBackend("vllm") as stub:
        worker = start_worker("stub", backend="vllm", url=stub.url, project=project, **OPTIONS)
        assert replies.ask()["model"] == "stub"
        assert len(stub.requests) >= 1
        with Listener(broker, topics.presence(worker.id)) as listener:
            listener.wait(1)
            assert presence_of(listener, worker.id)[-1].model == "stub"


def test_a_fallback_answers_while_the_breaker_is_open_and_done_says_so(
    start_worker: StartWorker, tmp_path: Path, project: str, replies: Replies
) -> None:
    with StubBackend("vllm") as stub:
        models = {"big": {**stub_slot(stub.url), "fallback": ["small"]}, "small": SIMULATED}
        worker = start_worker(config=models_file(tmp_path, models, {project: {"model": "big"}}), **OPTIONS)
        until(lambda: replies.ask()["model"] == "big")
        stub.always = Fault(status=500)
        for _ in range(5):
            replies.ask(timeout=60)
        until(lambda: "breaker closed -> open" in worker.log)
        end = replies.ask()
        assert (end["type"], end["model"]) == ("done", "small")
        stub.always = None
        until(lambda: replies.ask()["model"] == "big", every=0.5)
        until(lambda: "breaker half-open -> closed" in worker.log)


def test_without_a_fallback_everybody_hears_at_once_when_to_come_again(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, project: str, replies: Replies
) -> None:
    with StubBackend("vllm") as stub:
        models = {"big": stub_slot(stub.url), "small": SIMULATED}
        worker = start_worker(
            config=models_file(tmp_path, models, {project: {"model": "big", "models": ["small"]}}), **OPTIONS
        )
        until(lambda: replies.ask()["type"] == "done")
        stub.always = Fault(status=500)
        # The reserve of a lone request's retries is soon spent; then one comes back each ten seconds.
        until(lambda: replies.ask(timeout=60) and "breaker closed -> open" in worker.log)
        began = time.monotonic()
        end = replies.ask()
        assert (end["type"], end["code"]) == ("error", "engine_unavailable")
        assert end["retryAfterMs"] > 0
        assert time.monotonic() - began < 30  # and not the minute that a request may wait for a slot
        assert replies.ask(model="small")["type"] == "done"
        with Listener(broker, topics.presence(worker.id)) as listener:
            until(lambda: (said := presence_of(listener, worker.id)) and said[-1].models["big"] == "unavailable")
            stub.always = None
            until(lambda: presence_of(listener, worker.id)[-1].models["big"] == "ready")
        assert replies.ask()["model"] == "big"


def test_what_gets_no_slot_in_time_is_overloaded_and_hears_when_to_come_again(
    start_worker: StartWorker, tmp_path: Path, project: str, replies: Replies
) -> None:
    models = {"slow": {"engine": "simulated", "per_token": "60s", "capacity": 1}}
    start_worker(config=models_file(tmp_path, models, {project: {}}), slot_timeout="1s", **OPTIONS)
    first, second = replies.send(), replies.send()
    end = replies.end(second)
    assert (end["type"], end["code"]) == ("error", "overloaded")
    assert end["retryAfterMs"] > 0
    assert [one["type"] for one in replies.of(first)] == ["accepted"]


def test_the_time_that_a_model_takes_to_start_does_not_count(
    start_worker: StartWorker, tmp_path: Path, project: str, replies: Replies
) -> None:
    server = Path(__file__).parents[1] / "support" / "tiny_server.py"
    command = [sys.executable, str(server), "--port", "{port}", "--start-delay", "4"]
    models = {
        "here": SIMULATED,
        "late": {"backend": "vllm", "model": "tiny", "manage": {"command": command}, "when": "on-demand"},
    }
    projects = {project: {"model": "here", "models": ["late"]}}
    start_worker(config=models_file(tmp_path, models, projects), slot_timeout="1s", **OPTIONS)
    began = time.monotonic()
    end = replies.ask("one two", model="late", timeout=60)
    assert (end["type"], end["model"], end["text"].split()) == ("done", "late", ["one", "two"]), end
    assert time.monotonic() - began > 4


def test_a_server_that_starts_is_starting_and_one_that_always_runs_makes_the_worker_ready(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, project: str, replies: Replies
) -> None:
    server = Path(__file__).parents[1] / "support" / "tiny_server.py"
    command = [sys.executable, str(server), "--port", "{port}", "--start-delay", "2"]
    place = {"backend": "vllm", "model": "tiny", "manage": {"command": command}}
    models = {"always": place, "asked": {**place, "when": "on-demand"}}
    with Listener(broker, topics.presence("+")) as listener:
        projects = {project: {"model": "always", "models": ["always", "asked"]}}
        worker = start_worker(config=models_file(tmp_path, models, projects), **OPTIONS)
        until(lambda: any(said.state == "ready" for said in presence_of(listener, worker.id)))
        first = next(said for said in presence_of(listener, worker.id) if said.state == "ready")
        assert first.models == {"always": "ready", "asked": "stopped"}
        assert replies.ask(model="asked", timeout=60)["type"] == "done"
        until(lambda: presence_of(listener, worker.id)[-1].models["asked"] == "ready")
        assert "starting" in {said.models.get("asked") for said in presence_of(listener, worker.id)}


def test_a_server_that_is_away_at_the_start_is_found_when_it_comes(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, project: str, replies: Replies
) -> None:
    stub = StubBackend("vllm")
    stub.port = free_port()
    models = {"here": SIMULATED, "away": stub_slot(f"http://127.0.0.1:{stub.port}")}
    projects = {project: {"model": "here", "models": ["away"]}}
    worker = start_worker(config=models_file(tmp_path, models, projects), **OPTIONS)
    assert replies.ask()["model"] == "here"
    end = replies.ask(model="away")
    assert (end["code"], end["retryAfterMs"] > 0) == ("engine_unavailable", True)
    with Listener(broker, topics.presence(worker.id)) as listener:
        until(lambda: (said := presence_of(listener, worker.id)) and said[-1].models["away"] == "unavailable")
        with stub:
            until(lambda: presence_of(listener, worker.id)[-1].models["away"] == "ready")
            assert replies.ask(model="away")["model"] == "away"


@pytest.mark.parametrize(
    ("models", "projects", "words"),
    [
        ({"a": SIMULATED, "b": SIMULATED}, {"p": {}}, ["projects.p.model", "Say, for example, model: a"]),
        ({"qwen3": SIMULATED}, {"p": {"model": "qwen"}}, ["projects.p", "no model qwen", "is qwen3 meant?"]),
        ({"a": {"engine": "simulated", "url": "http://x"}}, {"p": {}}, ["models.a", "url has no meaning without"]),
        ({"a": {"backend": "vllm", "capacity": 3}}, {"p": {}}, ["models.a", "capacity has no meaning without"]),
        ({"a": {"backend": "vlm"}}, {"p": {}}, ["models.a.backend", "vllm"]),
        ({"a": {"engine": "vllm"}}, {"p": {}}, ["models.a", "engine: vllm needs a path"]),
        ({"a": {**SIMULATED, "fallback": ["b"]}}, {"p": {}}, ["a.fallback", "there is no model b"]),
        ({"a b": SIMULATED}, {"p": {}}, ["'a b' is no model's name"]),
        (
            {"a": {"backend": "openai", "api_key_env": "NO_SUCH_KEY"}},
            {"p": {}},
            ["a/openai", "api_key_env names NO_SUCH_KEY", "set it"],
        ),
        ({"a": {}}, {"p": {}}, ["models.a", "a slot has an engine (vllm, simulated) or a backend"]),
        (
            {"a": {"slots": [SIMULATED, {"backend": "ollama", "concurrency": 0}]}},
            {"p": {}},
            ["models.a.slots", "concurrency"],
        ),
        (
            {"a": {"backend": "llama.cpp", "path": "x.gguf", "when": "on-demand", "memory": "9 GiB"}},
            {"p": {}},
            ["models.a", "never fits", "memory_budget"],
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place_and_remedy(
    tmp_path: Path, models: dict[str, Any], projects: dict[str, Any], words: list[str]
) -> None:
    file = models_file(tmp_path, models, projects)
    if "memory_budget" in words:
        file.write_text(json.dumps({**json.loads(file.read_text()), "memory_budget": "4 GiB"}))
    run = inferbus("serve", "--config", str(file))
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    for word in [*words, file.name]:
        assert word in run.stderr


def test_as_many_requests_as_a_slot_takes_are_all_in_the_engine_at_once(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, project: str, replies: Replies
) -> None:
    models = {"wide": {"engine": "simulated", "per_token": "3s", "capacity": 256}}
    worker = start_worker(config=models_file(tmp_path, models, {project: {}}), **OPTIONS)
    for _ in range(64):
        replies.send()
    with Listener(broker, topics.stats(worker.id)) as listener:
        until(lambda: slots_of(ask_stats(listener, worker.id), "wide")["wide/simulated"].active == 64, every=0.2)
    replies.settle()
    assert replies.ledger.outcomes == {"done": 64}


def test_the_threads_that_a_crowd_needed_go_again(
    start_worker: StartWorker, tmp_path: Path, project: str, replies: Replies
) -> None:
    models = {"wide": {"engine": "simulated", "per_token": "2s", "capacity": 256}}
    program = Path(__file__).with_name("impatient_worker.py")
    worker = start_worker(
        config=models_file(tmp_path, models, {project: {}}), program=[sys.executable, str(program)], **OPTIONS
    )
    replies.ask()  # by then all threads are there that always are
    at_rest = threads_of(worker)
    for _ in range(64):
        replies.send()
    until(lambda: threads_of(worker) >= at_rest + 50)
    replies.settle()
    until(lambda: threads_of(worker) <= at_rest)
    replies.send()
    replies.settle()


def threads_of(worker: WorkerProcess) -> int:
    return psutil.Process(worker.pid).num_threads()


def test_when_the_engine_in_this_process_dies_the_other_models_drain(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, project: str, replies: Replies
) -> None:
    models = {
        "mortal": {"engine": "simulated", "per_token": "60s"},
        "other": {"engine": "simulated", "per_token": "3s"},
    }
    projects = {project: {"model": "mortal", "models": ["other"]}}
    program = Path(__file__).with_name("mortal_worker.py")
    options = {**OPTIONS, "drain_timeout": "20s"}
    worker = start_worker(
        config=models_file(tmp_path, models, projects), program=[sys.executable, str(program)], **options
    )
    lost = [replies.send() for _ in range(4)]
    kept = [replies.send(model="other") for _ in range(4)]
    until(lambda: all(replies.of(request) for request in [*lost, *kept]))
    with Listener(broker, topics.presence(worker.id)) as listener:
        listener.wait(1)
        replies.send("die", model="mortal")
        ends = [replies.end(request) for request in lost]
        assert {end.get("code") for end in ends} == {"engine_unavailable"}
        assert {replies.end(request)["type"] for request in kept} == {"done"}
        assert worker.process.wait(60) == 1
        until(lambda: presence_of(listener, worker.id)[-1].state == "offline")
    assert "the engine is given up" in worker.log
