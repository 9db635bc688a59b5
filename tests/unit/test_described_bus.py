"""docs/asyncapi.yaml and docs/schemas say what worker and client do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel, create_model

from inferbus_client.contract import topics
from inferbus_client.contract.presence import GroupStats, Presence, Stats
from inferbus_client.contract.wire import (
    Accepted,
    Control,
    Delta,
    Done,
    ErrorReply,
    Failure,
    InvalidPayloadError,
    Reply,
    Request,
    Timing,
    Usage,
    decode_request,
)
from support import described_bus
from support.described_bus import ASYNCAPI, SCHEMAS, files, schema
from support.scripts import ROOT

WHOSE: Final = {"request_id": "r1", "session_id": "s1", "seq": 0}
#: Payloads on a `user_input` topic, and whether they are requests.
ASKED: Final[list[tuple[dict[str, Any], bool]]] = [
    ({"message": "hello"}, True),
    ({"message": "hello", "sessionId": 7, "clientId": "", "requestId": 1.5, "future": {"a": 1}}, True),
    ({"message": [{"type": "text", "text": "hello"}], "reply": "json", "stream": True}, True),
    ({"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hello"}]}, True),
    ({"message": "hello", "params": {"stop": ["."], "seed": 1}, "temperature": 0, "deadlineMs": 1000}, True),
    ({}, False),
    ({"message": 7}, False),
    ({"message": "hello", "temperature": 3}, False),
    ({"message": "hello", "params": {"logprobs": True}}, False),
    ({"message": "hello", "reply": "xml"}, False),
    ({"message": [{"type": "audio"}]}, False),
    ({"messages": [{"role": "wizard", "content": "hello"}]}, False),
    ({"message": "hello", "requestId": "x" * 129}, False),
]
TOLD: Final[list[BaseModel]] = [
    Accepted(**WHOSE, queue_position=3, eta_ms=None),
    Accepted(**WHOSE, run=1, queue_position=0, worker="gpu-2"),
    Delta(**WHOSE, text="Hel"),
    Delta(**WHOSE, text="", reasoning="hm"),
    Done(
        **WHOSE,
        text="Hello",
        usage=Usage(prompt_tokens=3, completion_tokens=1),
        timing=Timing(queue_ms=0.1, total_ms=3.5),
        model="phi",
    ),
    ErrorReply.of(Failure("rate_limited", retry_after_ms=70), request_id="r1", session_id="s1", seq=1),
    Presence(worker="gpu-1", state="ready", model="phi"),
    Presence(worker="gpu-1", state="ready", group="inferbus"),
    Stats(worker="gpu-1"),
    Stats(worker="gpu-1", group=GroupStats(name="inferbus", reached=False, reason="timed out")),
]


@pytest.mark.parametrize(("path", "text"), list(files()), ids=lambda value: str(value)[:40])
def test_what_is_committed_is_what_the_code_says(path: str, text: str) -> None:
    assert (ROOT / path).read_text() == text, "run scripts/docs"


def test_no_schema_is_left_of_a_model_that_is_gone() -> None:
    assert {str(file.relative_to(ROOT)) for file in (*SCHEMAS.iterdir(), ASYNCAPI)} == {path for path, _ in files()}


def test_a_key_that_goes_makes_it_another_document(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(files())
    left: Any = {"type": (Literal["delta"], "delta")}
    shorter: Any = create_model("Delta", __base__=Reply, **left)
    for models in ("_WRITTEN", "_MODELS"):
        told = tuple(shorter if model is Delta else model for model in getattr(described_bus, models))
        monkeypatch.setattr(described_bus, models, told)
    monkeypatch.setattr(described_bus, "Delta", shorter)
    after = dict(files())
    assert {path for path in before if before[path] != after[path]} == {"docs/asyncapi.yaml", "docs/schemas/delta.json"}


@pytest.mark.parametrize(
    "model", [Request, Control, *dict.fromkeys(type(told) for told in TOLD)], ids=lambda model: model.__name__
)
def test_each_schema_is_one(model: type[BaseModel]) -> None:
    Draft202012Validator.check_schema(schema(model))


@pytest.mark.parametrize(("fields", "is_one"), ASKED, ids=lambda value: str(value)[:50])
def test_a_schema_takes_what_the_worker_takes(fields: dict[str, Any], *, is_one: bool) -> None:
    assert Draft202012Validator(schema(Request)).is_valid(fields) == is_one
    if is_one:
        assert decode_request(json.dumps(fields).encode())
    else:
        with pytest.raises(InvalidPayloadError):
            decode_request(json.dumps(fields).encode())


@pytest.mark.parametrize("told", TOLD, ids=lambda told: type(told).__name__)
def test_what_the_worker_writes_is_by_its_schema(told: Any) -> None:
    Draft202012Validator(schema(type(told))).validate(json.loads(told.encode()))


def test_the_addresses_are_those_that_the_worker_subscribes_to_and_publishes_on() -> None:
    document = yaml.safe_load(Path(ASYNCAPI).read_text())
    channels = {name: channel["address"] for name, channel in document["channels"].items()}
    read = {
        channels[operation["channel"]["$ref"].rpartition("/")[2]]
        for operation in document["operations"].values()
        if operation["action"] == "receive"
    }
    filled = {
        address.format(project="general", session="s1", user="alice", worker="w1").replace("s1", "+")
        for address in read
    }
    expected = {
        *topics.inbound_filters("general"),
        *(one.replace("/+", "/alice", 1) for one in topics.inbound_filters("general", users=True)),
        topics.stats_request("w1"),
        topics.drain("w1"),
        topics.probe("w1"),
    }
    assert filled == expected
