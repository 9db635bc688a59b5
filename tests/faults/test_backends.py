"""Trials 20 and 51: servers across the network that refuse, break, cut off, hang and leak."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from conftest import StartWorker
from inferbus_client.contract import topics
from support.listener import Listener
from support.models import ask_stats, models_file, slots_of, stub_slot
from support.mosquitto import Mosquitto
from support.replies import Replies
from support.stub_backend import Fault, StubBackend
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_OPTIONS: Final[dict[str, Any]] = {"rate_limit": "off", "queue_size": 10_000, "engine_silence": "1s"}
#: Each happens before anything is shown, but `cut-late`: there the requester of a stream has seen a part.
_FAULTS: Final = {
    "429-later": Fault(status=429, retry_after="1"),
    "429": Fault(status=429),
    "500": Fault(status=500),
    "503": Fault(status=503),
    "529": Fault(status=529),
    "reset": Fault(reset=True),
    "cut": Fault(cut=True),
    "cut-late": Fault(cut=True, after=2),
    "in-stream": Fault(in_stream=503),
    "garbage": Fault(raw="data: {]\n\n"),
}
_SILENCE: Final = Fault(silence=True)
#: Those that say of a server that it is well, and has enough to do.
_REFUSALS: Final = {"429-later", "429", "503", "529", "in-stream"}
_MOST: Final = 1.2
#: Retries that lone requests may have besides, and the seconds in which there is another one of them.
_SAVED: Final = 3
_SAVED_EACH: Final = 10.0
_SHARE: Final = 0.1
#: Three attempts in a row come to harm in one of a thousand requests.
_LEAST_DONE: Final = 0.97
_WORDS: Final = "one two three four five six {}"


def amplification(stub: StubBackend) -> float:
    """What the server saw for each first attempt; the worker's own questions of one token do not count."""
    asked = [json.dumps(request.body["messages"][-1]) for request in stub.requests]
    asked = [text for text in asked if "Hello" not in text]
    return len(asked) / max(len(set(asked)), 1)


def most_amplified(requests: int, seconds: float) -> float:
    """What a server may see for each first attempt, of so many, in so long a time."""
    return _MOST + (_SAVED + seconds / _SAVED_EACH) / requests


def assert_whole(replies: Replies, request: str, text: str) -> None:
    """One terminal reply, and nothing before it that is not its own, in its order and once."""
    said = replies.of(request)
    assert [one["seq"] for one in said] == list(range(len(said)))
    assert [one["type"] for one in said].count("accepted") == 1
    end = said[-1]
    assert end["type"] in {"done", "error"}
    shown = "".join(one["text"] for one in said if one["type"] == "delta")
    assert text.startswith(shown) if end["type"] == "error" else shown in {"", text}


def test_a_backend_that_fails_a_tenth_of_the_time(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Trial 20: what one server does to one model; ten of them in one worker, each with a fault of its own."""
    count, began = size(60, 1000), time.monotonic()
    with ExitStack() as open_:
        stubs = {name: open_.enter_context(StubBackend("vllm")) for name in _FAULTS}
        models = {name: stub_slot(stub.url, 8) for name, stub in stubs.items()}
        projects = {kind: {"model": "500", "models": list(models)} for kind in ("shaky", "shaky-text")}
        # None of them is ever silent; but ten of them, in one process with who asks, may stand still for a second.
        options = {**_OPTIONS, "engine_silence": "1m"}
        worker = start_worker(config=models_file(tmp_path, models, projects), **options)
        replies = open_.enter_context(Replies(broker, "shaky"))
        texts = open_.enter_context(Listener(broker, "shaky-text/assistant_response/#"))
        await_ready(broker, worker, *models)
        for name, stub in stubs.items():
            stub.per_token = 0.002
            stub.faults.extend(_FAULTS[name] if random.random() < _SHARE else None for _ in range(count * 2))  # noqa: S311
        sent: dict[str, str] = {}
        for index in range(count):
            for name in models:
                text = _WORDS.format(f"{name}-{index}")
                if index % 3 == 2:
                    body = {"sessionId": f"{name}-{index}", "message": text, "model": name}
                    texts.publish("shaky-text/user_input", json.dumps(body))
                else:
                    sent[replies.send(text, model=name, stream=index % 3 == 1)] = text
        replies.settle(120)
        in_text = count // 3 * len(models)
        until(lambda: len(texts.heard) >= in_text)
        for request, text in sent.items():
            assert_whole(replies, request, text)
        said = Counter(message.topic for message in texts.heard)
        assert len(said) == in_text
        assert set(said.values()) == {1}
        outcomes = {name: Counter[str]() for name in models}
        for request, text in sent.items():
            row = replies.ledger.rows[request]
            outcomes[text.split()[-1].rpartition("-")[0]][row.ends[0]] += 1
        shares = {name: amplification(stub) for name, stub in stubs.items()}
        done = replies.ledger.outcomes["done"]
        report(
            20,
            f"{len(models)} faults, each in a tenth of {count} requests: {done} of {len(sent)} done, amplification at "
            f"most {max(shares.values()):.2f}",
            replies.ledger,
        )
        assert max(shares.values()) <= most_amplified(count, time.monotonic() - began), shares
        tally = replies.ledger.tally()
        assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)
        late = outcomes.pop("cut-late")
        assert set(late) <= {"done", "engine_error"}
        assert sum((ends["done"] for ends in outcomes.values()), 0) >= _LEAST_DONE * (len(sent) - late.total())


@pytest.mark.parametrize("name", ["500", "reset", "silence", "429-later"])
def test_a_backend_that_fails_all_the_time_and_comes_back(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, report: Callable[..., None], name: str
) -> None:
    """Trial 20: the breaker opens, what waits ends at once, and it closes again; who refuses is left alone."""
    project, count, began = f"down-{name}", size(60, 1000), time.monotonic()
    with StubBackend("vllm") as stub, Replies(broker, project) as replies:
        config = models_file(tmp_path, {"only": stub_slot(stub.url, 8)}, {project: {}})
        worker = start_worker(config=config, slot_timeout="4s", **{**_OPTIONS, "engine_silence": "500ms"})
        stub.always = _FAULTS.get(name, _SILENCE)
        for _ in range(count):
            replies.send(deadlineMs=40_000)
        replies.settle()
        seen = len({json.dumps(request.body["messages"]) for request in stub.requests})
        share = amplification(stub)
        wanted = {"overloaded"} if name in _REFUSALS else {"engine_unavailable", "engine_error", "overloaded"}
        assert set(replies.ledger.outcomes) <= wanted
        assert share <= most_amplified(seen, time.monotonic() - began)
        if name not in _REFUSALS:
            assert "breaker closed -> open" in worker.log
        stub.always = None
        until(lambda: replies.ask()["type"] == "done", every=0.5)
        replies.settle()
        tally = replies.ledger.tally()
        assert (tally["lost"], tally["duplicate"], tally["corrupt"]) == (0, 0, 0)
        report(20, f"{name} all the time: {seen} of {count} requests tried, amplification {share:.2f}")


def test_a_backend_that_forgets_a_request_among_many(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Trial 20: it answers all others, so no probe finds it out; nobody waits for ever, though nobody set a time."""
    with StubBackend("vllm") as stub, Replies(broker, "forgetful") as replies:
        config = models_file(tmp_path, {"forgetful": stub_slot(stub.url, 8)}, {"forgetful": {}})
        start_worker(config=config, **{**_OPTIONS, "engine_silence": "500ms"})
        until(lambda: replies.ask()["type"] == "done")
        stub.faults.extend([None, _SILENCE, None, None, _SILENCE])
        began = time.monotonic()
        for _ in range(20):
            replies.send()
        replies.settle()
        assert set(replies.ledger.outcomes) == {"done"}
        report(20, f"2 requests that a server forgot: answered after {time.monotonic() - began:.1f} s")


def test_a_backend_that_goes_on_with_what_was_given_up(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Trial 20: a leaked slot opens the breaker; the server's word that it is free closes it."""
    with StubBackend("llama.cpp") as stub, Replies(broker, "leaky") as replies:
        slot = {"backend": "llama.cpp", "url": stub.url, "concurrency": 4}
        options = {**_OPTIONS, "engine_silence": "1m"}  # else what is silent is found out before what has leaked
        worker = start_worker(config=models_file(tmp_path, {"leaky": slot}, {"leaky": {}}), **options)
        until(lambda: replies.ask()["type"] == "done")
        stub.leaks, stub.per_token = True, 60.0
        ends = [replies.ask(deadlineMs=1000) for _ in range(2)]
        assert {end["code"] for end in ends} == {"deadline_exceeded"}
        until(lambda: "breaker closed -> open: it goes on with what was given up" in worker.log)
        stub.free()
        stub.per_token = 0.0
        began = time.monotonic()
        until(lambda: replies.ask()["type"] == "done", every=0.5)
        report(20, f"a leaked slot: noticed; served again {time.monotonic() - began:.1f} s after it was free")


def test_a_backend_that_refuses_half_of_what_a_naive_client_would_send(
    broker: Mosquitto, start_worker: StartWorker, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Trial 51: 429 with Retry-After from a bucket of tokens that is filled at half the rate at which requests come.

    Not a coin tossed for each attempt: of requests that are refused with one half however few there are, 1.2 attempts
    each let at most 0.6 through, whatever the client does.
    """
    seconds = size(10, 300)
    with StubBackend("vllm") as stub, Replies(broker, "metered") as replies:
        config = models_file(tmp_path, {"metered": stub_slot(stub.url, "auto")}, {"metered": {}})
        worker = start_worker(config=config, **_OPTIONS)
        stub.first_token, rate = 0.05, 20
        stub.rate, stub.burst = rate / 2, rate
        began = time.monotonic()
        for index in range(seconds * rate):
            replies.send(deadlineMs=60_000, clientId=f"c{index % 7}")
            time.sleep(max(0.0, began + index / rate - time.monotonic()))
        replies.settle(90)
        refused = sum(slots_of_worker(broker, worker, "metered").values())
        stub.rate = None
        until(lambda: [replies.send() for _ in range(20)] and re.search(_STEP_UP, worker.log), every=0.5)
        replies.settle()
        steps = re.findall(r"metered/vllm: limit (\d+) -> (\d+)", worker.log)
        done = replies.ledger.outcomes["done"] / replies.ledger.tally()["sent"]
        share = amplification(stub)
        report(
            51,
            f"{refused} refused; amplification {share:.2f}, {done:.1%} done; the limit went "
            f"{' '.join(f'{before}-{after}' for before, after in steps[:12])}",
            replies.ledger,
        )
        tally = replies.ledger.tally()
        assert (tally["lost"], tally["duplicate"], tally["corrupt"]) == (0, 0, 0)
        assert refused > 0
        assert share <= _MOST
        assert done >= 0.95
        assert any(int(after) < int(before) for before, after in steps)


#: A step up after one down.
_STEP_UP: Final = r"(?s)limit (\d+) -> \d+: the backend refused.*limit \d+ -> \d+: (the first token holds|nothing was)"


def slots_of_worker(broker: Mosquitto, worker: WorkerProcess, model: str) -> Counter[str]:
    with Listener(broker, topics.stats(worker.id)) as listener:
        errors = Counter[str]()
        for slot in slots_of(ask_stats(listener, worker.id), model).values():
            errors.update(slot.errors)
        return errors


def await_ready(broker: Mosquitto, worker: WorkerProcess, *models: str) -> None:
    """Wait until each model says that it answers."""
    with Listener(broker, topics.stats(worker.id)) as listener:
        until(
            lambda: {ask_stats(listener, worker.id).models[model].state for model in models} == {"ready"},
            60,
            every=0.5,
        )
