"""The worker's rooms wired together without threads, a broker or a model: a test moves each request on by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inferbus_client.contract.wire import Failure
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.admission.admission import Admission
from inferbus_worker.admission.limits import RateLimits
from inferbus_worker.admission.reception import Reception
from inferbus_worker.admission.token_budget import TokenBudget
from inferbus_worker.bus.acknowledgements import Acknowledgements
from inferbus_worker.bus.attempts import Attempts
from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import CancelledGenerationError, ChatCall, Chunk, EngineDeadError
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.flow.turn import TurnRunner
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.sender import Replies
from inferbus_worker.replies.stream import Backlog, Outgoing, ReplyStream
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.memory.idempotency import RecentRequests
from inferbus_worker.state.memory.sessions import MemorySessions


@dataclass
class FakeClock:
    """A monotonic clock that stands still until a test moves it."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


Script = Callable[[ChatCall], Iterable[Chunk]]


def answer(*words: str) -> Script:
    """A script that says these words, one chunk each."""

    def script(_call: ChatCall) -> Iterator[Chunk]:
        for word in words:
            yield Chunk(word)
        yield Chunk(finish_reason="stop", usage=Usage(3, len(words)))

    return script


def fail(error: Exception) -> Script:
    """A script that says half a word and raises."""

    def script(_call: ChatCall) -> Iterator[Chunk]:
        yield Chunk("half")
        raise error

    return script


class ScriptedGeneration:
    """Runs a script until it is cancelled."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = chunks
        self.cancelled = False
        self.deadline: float | None = None

    def chunks(self, deadline: float | None) -> Iterator[Chunk]:
        self.deadline = deadline
        for chunk in self._chunks:
            if self.cancelled:
                raise CancelledGenerationError
            yield chunk

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class ScriptedEngine:
    """See `engines.base.Engine`. A token is a word."""

    script: Script = field(default_factory=lambda: answer("fine"))
    model: str = "scripted"
    capacity: int = 8
    context_tokens: int = 1000
    running: int = 0
    death: EngineDeadError | None = None
    calls: list[ChatCall] = field(default_factory=list)
    generations: list[ScriptedGeneration] = field(default_factory=list)

    def start(self) -> None: ...

    def stop(self, timeout: float) -> None: ...

    def generate(self, call: ChatCall) -> ScriptedGeneration:
        self.calls.append(call)
        self.generations.append(ScriptedGeneration(self.script(call)))
        return self.generations[-1]

    def count_tokens(self, text: str) -> int:
        return len(text.split())


class RecordedReplies(Replies):
    """Keeps the reply streams that have something to say, instead of giving them to a sender."""

    def __init__(self) -> None:
        super().__init__(qos=0, max_bytes=1_000_000)
        self.streams: list[ReplyStream] = []

    def open(self, address: ReplyAddress) -> ReplyStream:
        return ReplyStream(address, self.streams.append, Backlog())


class Rooms:
    """Admission, queue, sessions, turns and reply streams around a scripted engine and a clock that stands still.

    Attributes:
        gate: why admission is closed; None while it is open.
        acknowledged: what the broker was told, by packet identifier; with `attempts`, after the reply.
    """

    def __init__(
        self,
        *,
        script: Script | None = None,
        rate: RateLimit | None = None,
        queue_size: int = 100,
        projects: Mapping[str, ProjectSettings] | None = None,
        reply_topics: Sequence[str] = (),
        attempts: Attempts | None = None,
        **settings: Any,
    ) -> None:
        self.clock = FakeClock()
        self.engine = ScriptedEngine() if script is None else ScriptedEngine(script)
        projects = dict(projects or {"general": ProjectSettings()})
        self.settings = Settings(projects=projects, rate_limit=rate, **settings)
        self.gate: Failure | None = None
        self.active = 0
        self.acknowledged: list[int] = []
        self.replies = RecordedReplies()
        self.sessions = MemorySessions(10, 3600, clock=self.clock)
        self.limits = RateLimits(self.settings, clock=self.clock)
        self.queue = RequestQueue(queue_size, self.settings.projects, clock=self.clock)
        self.in_flight = InFlight()
        self.recent = RecentRequests(1_000_000, 300, clock=self.clock)
        self.meter = Meter(active=lambda: self.active, clock=self.clock)
        self.turns = TurnRunner(self.engine, self.settings)
        self.budget = None
        if self.settings.token_budget is not None:
            self.budget = TokenBudget(
                self.settings.token_budget,
                self.turns.most,
                clock=self.clock,
                max_keys=self.settings.rate_limit_sessions,
            )
        self.desk = Acknowledgements(self.acknowledged.append, attempts=attempts, max_attempts=3)
        self.reception = self._reception(Addressing(self.replies, reply_topics, self.desk.receipt_of))

    def _reception(self, addressing: Addressing) -> Reception:
        admission = Admission(
            settings=self.settings,
            sessions=self.sessions,
            limits=self.limits,
            budget=self.budget,
            queue=self.queue,
            in_flight=self.in_flight,
            recent=self.recent,
            addressing=addressing,
            meter=self.meter,
            gate=lambda: self.gate,
            clock=self.clock,
        )
        return Reception(
            projects=self.settings.projects,
            admission=admission,
            addressing=addressing,
            in_flight=self.in_flight,
            queue=self.queue,
            acknowledgements=self.desk,
            users=self.settings.identity == "topic",
            max_held_bytes=self.settings.max_message_bytes,
            clock=self.clock,
        )

    def receive(self, topic: str, payload: bytes | str | Mapping[str, Any] = b"", **more: Any) -> list[Outgoing]:
        """One message from the bus; returns what is to be published because of it."""
        if isinstance(payload, Mapping):
            payload = json.dumps(payload)
        raw = payload.encode() if isinstance(payload, str) else payload
        self.reception.receive(Incoming(topic=topic, payload=raw, **more))
        return self.sent()

    def ask(self, session: str = "s1", message: str = "hello", **fields: Any) -> list[Outgoing]:
        """A request in project `general`; returns what is to be published on admission."""
        return self.receive("general/user_input", {"sessionId": session, "message": message, **fields})

    def answer(self, session: str = "s1", message: str = "hello", **fields: Any) -> list[Outgoing]:
        """A request in project `general` and its whole turn; returns all of its replies."""
        return [*self.ask(session, message, **fields), *self.work()]

    def take(self) -> Job:
        """The queue's next job, as a worker thread takes it."""
        assert len(self.queue), "nothing waits in the queue"
        job = self.queue.take()
        assert job is not None
        return job

    def work(self) -> list[Outgoing]:
        """Run everything that waits, in the queue's order."""
        while len(self.queue):
            self.turns.run(self.take())
        return self.sent()

    def sent(self) -> list[Outgoing]:
        """What the sender would publish now."""
        streams = self.replies.streams.copy()
        self.replies.streams.clear()
        return [message for stream in streams for message in stream.outgoing()]

    @property
    def left_behind(self) -> dict[str, int]:
        """What unfinished requests hold; all zeros when there are none."""
        return {
            "claims": self.sessions.claimed,
            "in flight": len(self.in_flight),
            "queued": len(self.queue),
            "retries": len(self.recent._in_flight),
        }


NOTHING = {"claims": 0, "in flight": 0, "queued": 0, "retries": 0}


def texts(messages: Iterable[Outgoing]) -> list[str]:
    """The payloads of text replies."""
    return [message.payload.decode() for message in messages]


def replies(messages: Iterable[Outgoing]) -> list[dict[str, Any]]:
    """The payloads of JSON replies."""
    return [json.loads(message.payload) for message in messages]
