"""The intake in its own thread, where a tokenizer may hang, panic or take its time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.admission.gate import Gate
from inferbus_worker.bus.attempts import Attempts
from inferbus_worker.engines.factory import only
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.memory.sessions import MemorySessions
from inferbus_worker.wiring import build_rooms
from support.rooms import NOTHING, FakeClock, RecordedSender, Rooms, ScriptedEngine, replies
from support.waiting import until


class _Panic(BaseException):
    """As a Rust library's panic arrives in Python."""


class _Tokenizer(ScriptedEngine):
    """Hangs on one word until it is let go, and panics on another."""

    def __init__(self) -> None:
        super().__init__()
        self.context_tokens = 100_000
        self.is_hanging, self.let_go = threading.Event(), threading.Event()

    def count_tokens(self, text: str) -> int:
        if text == "hang":
            self.is_hanging.set()
            self.let_go.wait()
        if text == "panic":
            raise _Panic
        return super().count_tokens(text)


class _Worker:
    """Admission in its own thread; what it says stays in the sender."""

    def __init__(self, attempts: Attempts) -> None:
        self.tokenizer, self.clock, self.sender = _Tokenizer(), FakeClock(), RecordedSender()
        self.gate = Gate()
        self.gate.reason = None
        settings = Settings(projects={"general": ProjectSettings()}, token_budget=RateLimit(900_000, 60))
        lineup = only(self.tokenizer)
        lineup.models[""].slots[0].became_ready()
        self.rooms = build_rooms(
            settings,
            lineup.models,
            gate=self.gate,
            acknowledge=lambda _ack_id: None,
            in_network_thread=lambda wish: wish(),
            attempts=attempts,
            sender=self.sender,
            clock=self.clock,
        )
        self.rooms.intake.start()

    def ask(self, name: str, message: str = "hello", *, deadline_ms: int | None = None, **more: Any) -> None:
        fields = {"sessionId": name, "requestId": name, "reply": "json", "message": message, "deadlineMs": deadline_ms}
        payload = json.dumps({field: value for field, value in fields.items() if value is not None}).encode()
        self.rooms.reception.receive(Incoming(topic="general/user_input", payload=payload, **more))

    def hang(self) -> None:
        self.ask("hangs", "hang")
        assert self.tokenizer.is_hanging.wait(60)

    def codes(self) -> dict[str, str]:
        """What each request has been told: the failure's code, or what kind of reply it was."""
        said = [json.loads(message.payload) for stream in list(self.sender.streams) for message in stream.outgoing()]
        return {reply["requestId"]: reply.get("code", reply["type"]) for reply in said}


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[_Worker]:
    attempts = Attempts(tmp_path / "attempts.sqlite")
    worker = _Worker(attempts)
    yield worker
    worker.tokenizer.let_go.set()
    worker.rooms.intake.stop(5)
    attempts.close()


def test_a_tokenizer_that_panics_fails_one_request_and_stalls_nobody(worker: _Worker) -> None:
    worker.ask("first", "panic")
    worker.ask("second")
    until(lambda: len(worker.sender.streams) == 2)
    assert worker.codes() == {"first": "engine_error", "second": "accepted"}
    assert len(worker.rooms.stores.sessions) == 1, "a claim was left behind"


def test_what_came_in_one_go_is_refused_at_the_stop_where_its_first_one_hangs(worker: _Worker) -> None:
    first, second = threading.Event(), worker.tokenizer.let_go
    worker.tokenizer.let_go = first
    worker.hang()
    worker.tokenizer.is_hanging.clear()
    worker.ask("hangs-too", "hang")
    worker.ask("behind")
    worker.tokenizer.let_go = second
    first.set()
    assert worker.tokenizer.is_hanging.wait(60)
    worker.gate.reason = Failure("shutting_down")
    worker.rooms.intake.stop(0.1)
    assert worker.codes() == {"hangs": "accepted", "behind": "shutting_down"}


def test_a_deadline_counts_from_when_the_request_came(worker: _Worker) -> None:
    worker.hang()
    worker.ask("late", deadline_ms=1000)
    worker.ask("patient", deadline_ms=60_000)
    worker.clock.pass_(5)
    worker.tokenizer.let_go.set()
    until(lambda: len(worker.sender.streams) == 3)
    assert worker.codes() == {"hangs": "accepted", "late": "deadline_exceeded", "patient": "accepted"}
    (patient,) = [job for job in worker.rooms.in_flight.all() if job.deadline is not None]
    assert patient.deadline == worker.clock.now - 5 + 60


def test_a_cancel_that_came_again_with_its_request_hits_it_also_after_the_next_reconnect(worker: _Worker) -> None:
    reception, desk = worker.rooms.reception, worker.rooms.acknowledgements
    cancel = Incoming("general/cancel/s1", b"", qos=1, ack_id=2)
    worker.ask("s1", qos=1, ack_id=1)
    reception.receive(cancel)
    until(lambda: len(desk) == 1)
    assert worker.codes() == {"s1": "cancelled"}
    desk.answered(worker.sender.streams[0].address.receipt, arrived=False)
    worker.sender.streams.clear()

    reception.came_up(remembered=True)
    worker.hang()
    worker.ask("s1", qos=1, ack_id=1, dup=True)
    reception.receive(cancel._replace(dup=True))
    reception.came_up(remembered=True)
    worker.tokenizer.let_go.set()
    until(lambda: worker.rooms.intake.levels()["intakeBytes"][0] == 0)
    assert worker.codes() == {"hangs": "accepted", "s1": "cancelled"}


@pytest.mark.parametrize(
    "more",
    [
        {"correlation_data": bytes(60_000)},
        {"response_topic": "general/" + "x" * 60_000},
        {"user_properties": [("x" * 30_000, "y" * 30_000)]},
    ],
    ids=lambda more: next(iter(more)),
)
def test_the_bound_counts_all_that_a_requester_has_written(worker: _Worker, more: dict[str, Any]) -> None:
    worker.hang()
    before = worker.rooms.intake.levels()["intakeBytes"][0]
    worker.ask("long", **more)
    assert worker.rooms.intake.levels()["intakeBytes"][0] - before >= 60_000


def test_a_request_that_admission_fails_on_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_sessions: MemorySessions, _key: object) -> None:
        raise OSError("the store is away")

    rooms = Rooms()
    monkeypatch.setattr(MemorySessions, "claim", unreachable)
    assert [reply["code"] for reply in replies(rooms.ask(reply="json"))] == ["engine_error"]
    assert rooms.left_behind == NOTHING


def test_a_reset_that_cannot_be_written_lets_go_of_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise OSError("the store is full")

    rooms = Rooms()
    monkeypatch.setattr(MemorySessions, "commit", full)
    (reply,) = rooms.receive("general/user_input/s1", b"")
    assert reply.status == "engine_error"
    assert rooms.left_behind == NOTHING
