"""The worker's rooms wired together without threads, a broker or a model: a test moves each request on by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, cast

from inferbus_client.contract.wire import Failure
from inferbus_client.mqtt.message import Incoming
from inferbus_client.tracing.spans import Tracer
from inferbus_worker.admission.gate import Gate
from inferbus_worker.bus.attempts import Attempts
from inferbus_worker.chat import FinishReason, ToolCall, Usage
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    ChatCall,
    Completion,
    EngineDeadError,
    EngineError,
    OnDelta,
)
from inferbus_worker.engines.factory import only
from inferbus_worker.flow.job import Job
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.outbox import Source
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.replies.sender import Sender
from inferbus_worker.replies.stream import Backlog, ReplyStream
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.memory.budgets import MemoryBudgets
from inferbus_worker.state.memory.idempotency import RecentRequests
from inferbus_worker.wiring import build_rooms
from support.in_place import CourierInPlace, StoreInPlace
from support.model_slots import model_of
from support.shared import Shared


class Chunk(NamedTuple):
    """What a script says next. The last one alone carries `finish_reason` and `usage`."""

    text: str = ""
    reasoning: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    calls: Sequence[ToolCall] = ()


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
    """Runs a script, in the thread that waits for its end, until it is cancelled."""

    def __init__(self, chunks: Iterable[Chunk], on_delta: OnDelta | None) -> None:
        self._chunks = chunks
        self._on_delta = on_delta
        self.cancelled = False
        self.deadline: float | None = None

    def wait(self, deadline: float | None) -> Completion:
        self.deadline = deadline
        text, reasoning = "", ""
        for chunk in self._chunks:
            if self.cancelled:
                raise CancelledGenerationError
            text, reasoning = text + chunk.text, reasoning + chunk.reasoning
            if self._on_delta is not None:
                self._on_delta(chunk.text, chunk.reasoning)
            if chunk.finish_reason is not None and chunk.usage is not None:
                return Completion(text, chunk.finish_reason, chunk.usage, reasoning, tuple(chunk.calls))
        raise EngineError("the generation ended without a finish reason")

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class ScriptedEngine:
    """See `engines.base.Engine`. A token is a word."""

    script: Script = field(default_factory=lambda: answer("fine"))
    model: str = "scripted"
    capacity: int = 8
    context_tokens: int = 1000
    death: EngineDeadError | None = None
    headroom: float | None = None
    leaked: int = 0
    counts_exactly: bool = False
    memory_bytes: int | None = None
    calls: list[ChatCall] = field(default_factory=list)
    generations: list[ScriptedGeneration] = field(default_factory=list)

    def start(self) -> None: ...

    def stop(self, timeout: float) -> None: ...

    def generate(self, call: ChatCall, on_delta: OnDelta | None = None) -> ScriptedGeneration:
        self.calls.append(call)
        self.generations.append(ScriptedGeneration(self.script(call), on_delta))
        return self.generations[-1]

    def count_tokens(self, text: str) -> int:
        return len(text.split())


class RecordedSender(Sender):
    """Keeps the reply streams that have something to say, instead of giving them to a sender."""

    def __init__(self) -> None:
        super().__init__(qos=0, max_bytes=1_000_000)
        self.streams: list[ReplyStream] = []
        self.posted: list[Source] = []

    def open(self, address: ReplyAddress) -> ReplyStream:
        return ReplyStream(address, self.streams.append, Backlog())

    def post(self, source: Source) -> None:
        self.posted.append(source)


@dataclass
class StandingPool:
    """Where turns run: as many as a test says."""

    active: int = 0
    size: int = 0

    def of(self, _model: str) -> tuple[int, int]:
        return self.active, self.size


class KeptSessions(Protocol):
    """Sessions: how many are kept, and how many claimed."""

    def __len__(self) -> int: ...

    @property
    def claimed(self) -> int: ...


class Rooms:
    """The worker's rooms, as it wires them, around a scripted engine and a clock that stands still. No thread runs.

    With `models` it has those, with a slot for each engine (see `model_of`); `fallback` says who stands in for whom.

    Where the class has a `store`, they are those of a worker in a group that keeps its state there: a group of its
    own, or that of the rooms `beside` it. All that a test does to them and asks of them means the same.

    Attributes:
        gate: why admission is closed; None while it is open.
        acknowledged: what the broker was told, by packet identifier; with `attempts`, after the reply.
        shared: what they have more in a group; None: they are not in one.
    """

    store: ClassVar[StoreInPlace | None] = None

    def __init__(
        self,
        *,
        script: Script | None = None,
        rate: RateLimit | None = None,
        queue_size: int = 100,
        projects: Mapping[str, ProjectSettings] | None = None,
        reply_topics: Sequence[str] = (),
        attempts: Attempts | None = None,
        models: Mapping[str, Sequence[ScriptedEngine]] | None = None,
        fallback: Mapping[str, Sequence[str]] | None = None,
        tracer: Tracer | None = None,
        beside: Rooms | None = None,
        **settings: Any,
    ) -> None:
        self.clock: FakeClock = FakeClock() if beside is None else beside.clock
        courier: CourierInPlace | None = None
        if self.store is not None:
            settings["state"] = "redis://127.0.0.1"  # nobody connects there
            settings["group"] = self.store.new_group() if beside is None else beside.settings.group
            courier = CourierInPlace(self.store, settings["group"], self.clock)
        if models is not None:
            settings["models"] = {
                name: {"backend": "vllm", "fallback": (fallback or {}).get(name, [])} for name in models
            }
            projects = projects or {"general": ProjectSettings(model=next(iter(models)), models=list(models))}
        self.engine = ScriptedEngine() if script is None else ScriptedEngine(script)
        self.settings: Settings = Settings(
            **{"max_sessions": 10, "retry_memory_bytes": 1_000_000, **settings},
            projects=dict(projects or {"general": ProjectSettings()}),
            rate_limit=rate,
            queue_size=queue_size,
            reply_topics=list(reply_topics),
        )
        self._gate = Gate()
        self._gate.reason = None
        self.acknowledged: list[int] = []
        self.replies = RecordedSender()
        if models is None:
            self.models = only(self.engine).models
            self.models[""].slots[0].became_ready()
        else:
            self.models = {
                name: model_of(name, engines, self.clock, fallback=self.settings.models[name].fallback)
                for name, engines in models.items()
            }
        self.slot = next(iter(self.models.values())).slots[0]
        rooms = build_rooms(
            self.settings,
            self.models,
            gate=self._gate,
            acknowledge=self.acknowledged.append,
            in_network_thread=lambda wish: wish(),
            attempts=attempts,
            courier=courier,
            sender=self.replies,
            tracer=tracer,
            clock=self.clock,
            in_place=True,
        )
        self.desk, self.reception, self.limits = rooms.acknowledgements, rooms.reception, rooms.limits
        self.stores, self.queue, self.in_flight = rooms.stores, rooms.queue, rooms.in_flight
        self.turns, self.endings, self.meter = rooms.turns, rooms.endings, rooms.meter
        self.shared: Shared | None = None
        if rooms.membership is not None and courier is not None:
            self.shared = Shared(rooms.membership, courier, rooms.overdue)
        self.sessions = cast("KeptSessions", rooms.stores.sessions if self.shared is None else self.shared)
        self.recent = cast("RecentRequests", rooms.stores.recent)
        self.intake, self.levels = rooms.intake, rooms.levels
        self.slots, self.registry = rooms.slots, rooms.registry
        self.overdue = rooms.overdue if self.shared is None else self.shared
        self.pool = StandingPool()
        self.meter._pool = self.pool

    @property
    def gate(self) -> Failure | None:
        return self._gate.reason

    @gate.setter
    def gate(self, reason: Failure | None) -> None:
        self._gate.reason = reason

    def receive(self, topic: str, payload: bytes | str | Mapping[str, Any] = b"", **more: Any) -> list[Outgoing]:
        """One message from the bus; returns what is to be published because of it."""
        if isinstance(payload, Mapping):
            payload = json.dumps(payload)
        raw = payload.encode() if isinstance(payload, str) else payload
        if self.shared is not None:
            self.shared.beat()
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
        assert self.next_is_here(), "nothing waits in the queue"
        job = self.queue.take()
        assert job is not None
        return job

    def work(self) -> list[Outgoing]:
        """Run everything that waits, in the queue's order."""
        while self.next_is_here():
            self.turns.run(self.take())
        return self.sent()

    def sent(self) -> list[Outgoing]:
        """What the sender would publish now, and the broker then has."""
        while not self.endings._waiting.empty():
            waited = self.endings._waiting.get()
            assert waited is not None
            self.endings.write(waited)
        # One by one: a thread of a test's own may add to them meanwhile.
        streams = [self.replies.streams.pop(0) for _ in range(len(self.replies.streams))]
        posted, self.replies.posted = self.replies.posted, []
        messages = [message for source in (*streams, *posted) for message in source.outgoing()]
        if self.shared is not None:
            self.shared.published(messages)
        return messages

    def next_is_here(self) -> bool:
        """Whether the next job waits here, for a thread that takes it; in a group it comes from the store."""
        while self.shared is not None and not len(self.queue) and self.shared.fetch():
            pass  # one that cannot be run has been ended, and is nothing to take
        return len(self.queue) > 0

    def queued(self, model: str | None = None) -> int:
        """How many requests wait."""
        if self.shared is not None:
            return self.shared.queued(model)
        return len(self.queue) if model is None else self.queue.queued(model)

    def forms(self, model: str = "") -> int:
        """How many answers in a given form are under way."""
        return self.in_flight.forms(model) if self.shared is None else self.shared.forms(model)

    def charges(self, session: str = "s1") -> list[int]:
        """The tokens that a session is charged with, one by one, where there is a budget."""
        if self.shared is not None:
            return self.shared.charges(session)
        table = cast("MemoryBudgets", self.stores.budgets)._charges
        return [charge.tokens for charge in table.get(SessionKey("general", session), ())]

    @property
    def budgeted(self) -> int:
        """Of how many sessions tokens are counted now."""
        if self.shared is not None:
            return len(self.shared.courier.names("budget:"))
        return cast("MemoryBudgets", self.stores.budgets).levels()["tokenBudgetSessions"][0]

    @property
    def counted(self) -> int:
        """In how many windows of rate limits anything counts."""
        if self.shared is not None:
            return len(self.shared.courier.names("window:"))
        return sum(now for now, _ in self.limits.levels().values())

    @property
    def history_bytes(self) -> int:
        """What the histories of all sessions take, about."""
        return self.levels()["historyBytes"][0] if self.shared is None else self.shared.history_bytes

    @property
    def left_behind(self) -> dict[str, int]:
        """What unfinished requests hold; all zeros when there are none."""
        if self.shared is not None:
            return self.shared.left_behind
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
