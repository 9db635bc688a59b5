"""`RemoteEngine` before vLLM's own HTTP server with the demo model: by OpenAI's shape, and by Anthropic's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from pydantic import SecretStr

from inferbus_worker.engines.base import (
    BackendError,
    CancelledGenerationError,
    ChatCall,
    Completion,
    ContextTooLongError,
    EngineStartError,
    GenerationTimeoutError,
    InvalidCallError,
    Sampling,
)
from inferbus_worker.engines.remote.engine import RemoteEngine, RemotePlace
from inferbus_worker.engines.remote.loop import RemoteLoop
from inferbus_worker.engines.vllm.arguments import DEMO_PATH
from inferbus_worker.engines.vllm.engine import VllmEngine
from support.mosquitto import HOST, free_port
from support.waiting import LOADING, until

KEY: Final = "sk-for-this-test"
_SEQUENCES, _QUEUED = 8, 8
#: It cannot leave this grammar before its context is full; by itself it answers in a line.
_LONG: Final = {"type": "json_schema", "json_schema": {"name": "long", "schema": {"type": "string", "minLength": 1500}}}


@pytest.fixture(scope="module")
def server(vllm_needed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: ARG001 - asked first
    """The address of one server for all tests here: small, so that a few requests fill it."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(DEMO_PATH)),
        *("--served-model-name", "demo", "--host", HOST, "--port", str(port), "--api-key", KEY),
        *("--enforce-eager", "--dtype", "float32", "--max-num-seqs", str(_SEQUENCES)),
        *("--max-num-queued-reqs", str(_QUEUED), "--structured-outputs-config.backend", "guidance"),
    ]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CONFIGURE_LOGGING": "1",
    }
    log = tmp_path_factory.mktemp("vllm") / "log"
    url = f"http://{HOST}:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: process.poll() is not None or _is_well(url), LOADING, every=0.5)
        assert process.poll() is None, log.read_text()[-4000:]
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)


def _is_well(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False


@pytest.fixture(scope="module")
def loop() -> Iterator[RemoteLoop]:
    loop = RemoteLoop()
    loop.start()
    yield loop
    loop.stop(10)


@pytest.fixture(scope="module", params=["vllm", "anthropic"])
def remote(request: pytest.FixtureRequest, server: str, loop: RemoteLoop) -> Iterator[RemoteEngine]:
    engine = RemoteEngine(RemotePlace(request.param, server, None, SecretStr(KEY)), loop)
    engine.start()
    yield engine
    engine.stop(10)


def call(text: str = "My name is Zorvek", **options: Any) -> ChatCall:
    sampling = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 24} | options
    return ChatCall([{"role": "user", "content": text}], Sampling(**sampling))


def long_call(index: int) -> ChatCall:
    return call(f"number {index}", max_tokens=1800, extra={"response_format": _LONG})


def whole(engine: RemoteEngine | VllmEngine, chat: ChatCall) -> Completion:
    return engine.generate(chat).wait(time.monotonic() + 60)


def running_there(server: str) -> int:
    request = urllib.request.Request(f"{server}/metrics", headers={"Authorization": f"Bearer {KEY}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the server of this test
        lines = answer.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running{")))


def test_it_tells_its_model_context_and_capacity(remote: RemoteEngine) -> None:
    assert (remote.model, remote.context_tokens) == ("demo", 2048)
    if remote.place.backend == "vllm":
        assert remote.told_capacity is not None
        assert remote.told_capacity > 8


def test_greedy_answers_and_tokens_are_those_of_the_engine_in_this_process(
    remote: RemoteEngine, engine: VllmEngine
) -> None:
    for text in ("My name is Zorvek", "Who are you?", "What is your name?", "hello"):
        assert whole(remote, call(text)) == whole(engine, call(text))
        assert remote.count_tokens(text) == engine.count_tokens(text)
    assert remote.counts_exactly


def test_deltas_come_before_the_end_and_join(remote: RemoteEngine) -> None:
    said: list[str] = []
    answer = remote.generate(call("Who are you?"), lambda text, _, *_calls: said.append(text)).wait(
        time.monotonic() + 60
    )
    assert len(said) > 3
    assert "".join(said) == answer.text


def test_an_answer_that_reaches_its_bound_says_so(remote: RemoteEngine) -> None:
    answer = whole(remote, call("Who are you?", max_tokens=2))
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 2)


def test_a_bound_beyond_the_context_is_none(remote: RemoteEngine) -> None:
    assert whole(remote, call(max_tokens=1_000_000)).finish_reason == "stop"


def test_a_cancel_frees_the_slot_within_a_second_and_nothing_leaks(remote: RemoteEngine, server: str) -> None:
    running = [remote.generate(long_call(index)) for index in range(4)]
    until(lambda: running_there(server) == 4)
    for generation in running:
        generation.cancel()
        with pytest.raises(CancelledGenerationError):
            generation.wait(None)
    until(lambda: running_there(server) == 0, 5)
    until(lambda: remote.running == 0)
    assert remote.leaked == 0


def test_a_deadline_frees_the_slot(remote: RemoteEngine, server: str) -> None:
    with pytest.raises(GenerationTimeoutError):
        remote.generate(long_call(0)).wait(time.monotonic() + 1)
    until(lambda: running_there(server) == 0, 5)


def test_a_form_is_kept_to(remote: RemoteEngine) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["Zorvek", "Quillon"]}}}
    assert json.loads(whole(remote, call(extra={"response_format": form})).text) in {"Zorvek", "Quillon"}


def test_what_the_model_cannot_take_is_told_apart(remote: RemoteEngine) -> None:
    with pytest.raises(ContextTooLongError):
        whole(remote, call("a" * 6000))
    with pytest.raises(InvalidCallError, match="temperature"):
        whole(remote, call(temperature=3.5))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with pytest.raises(InvalidCallError):
        whole(remote, call()._replace(messages=[{"role": "user", "content": [picture]}]))


def test_a_whole_conversation_is_understood(remote: RemoteEngine, engine: VllmEngine) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My name is Zorvek"},
        {"role": "assistant", "content": "Nice to meet you, Zorvek."},
        {"role": "user", "content": "What is my name?"},
    ]
    chat = call()._replace(messages=messages)
    assert whole(remote, chat).text == whole(engine, chat).text


def test_a_full_queue_is_a_failure_to_be_tried_again(remote: RemoteEngine, server: str) -> None:
    count = 3 * (_SEQUENCES + _QUEUED)
    running = [remote.generate(long_call(index)) for index in range(count)]
    with ThreadPoolExecutor(count) as pool:

        def fault(generation: Any) -> str:
            try:
                generation.wait(time.monotonic() + 5)
            except BackendError as error:
                return error.fault
            except GenerationTimeoutError:
                return "ran"
            return "done"

        faults = list(pool.map(fault, running))
    # In Anthropic's shape vLLM says which error it is where it refuses at once, and not where its stream has begun.
    refused = {"503"} if remote.place.backend == "vllm" else {"503", "5xx"}
    assert refused & set(faults)
    assert set(faults) <= {*refused, "ran", "done"}
    until(lambda: running_there(server) == 0, 15)


def test_a_wrong_key_and_an_unknown_model_are_said_at_the_start(server: str, loop: RemoteLoop) -> None:
    for key, model, words in ((None, None, "key"), ("wrong", None, "key"), (KEY, "other", "it serves demo")):
        place = RemotePlace("vllm", server, model, None if key is None else SecretStr(key))
        with pytest.raises(EngineStartError, match=words):
            RemoteEngine(place, loop).start()


def test_another_kind_of_server_is_said_at_the_start(server: str, loop: RemoteLoop) -> None:
    engine = RemoteEngine(RemotePlace("ollama", server, None, SecretStr(KEY)), loop)
    with pytest.raises(EngineStartError, match="is not Ollama: it does not know /api/version; mend backend or url"):
        engine.start()
    engine.stop(5)
