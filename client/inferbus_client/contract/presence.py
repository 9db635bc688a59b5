"""What a worker says about itself: retained presence, and the periodic stats.

The worker encodes these models, `inferbus status` and the start-up checks read them. Unknown keys are ignored, so
that a newer worker can say more without breaking an older client.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from inferbus_client.contract.histogram import Histogram
from inferbus_client.units import Int64

State = Literal["loading", "ready", "draining", "offline"]

#: In seconds since the Unix epoch: later times cannot be written as a date.
_YEAR_10000: Final = 253_402_300_800
#: Names of one kind, each of which a page may show on a line of its own.
MAX_NAMES: Final = 100
#: How a model or a slot is called, and one word about it. A newer worker may have words that this client does not know.
_Name = Annotated[str, Field(max_length=128)]
_Word = Annotated[str, Field(max_length=32)]
#: A slot's begins with its model's.
_SlotName = Annotated[str, Field(max_length=192)]
_MAX_REASON: Final = 200
#: A larger announcement is none of ours.
_MAX_BYTES: Final = 262_144


class _Announcement(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    v: Literal[1] = 1
    worker: str

    def encode(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()


class Instance(BaseModel):
    """One run of a worker. Two that use one worker id by mistake tell each other apart by it.

    Attributes:
        mark: made up at the start; no two runs share it.
        started: in seconds since the Unix epoch, by its own host's clock.
        connection: 1 on its first connection to the broker, one more on each later one. Who counts on, lives.
        host: where it runs; None where it does not say.
        pid: its process there.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    mark: str = Field(max_length=64)
    started: float = Field(ge=0, lt=_YEAR_10000)
    connection: Int64 = Field(1, ge=1)
    host: str | None = Field(None, max_length=255)
    pid: Int64 | None = None

    def precedes(self, other: Instance) -> bool:
        """Whether it was started before `other`. Of two runs both say the same, however their clocks differ."""
        return (self.started, self.mark) < (other.started, other.mark)


class Presence(_Announcement):
    """A worker's state, retained on `inferbus/workers/{worker}/status`. Its Last Will says `offline`.

    Attributes:
        model: what it serves; None while that is not known.
        projects: whose topics it serves.
        identity: `topic` where it serves those with the user in them alone, else `none`; None where it does not say.
        capacity: how many requests its engine runs at once; None while that is not known.
        since: when this state began, in seconds since the Unix epoch. A Last Will is written in advance, so it does
            not say.
        instance: which run says so; None where that is not known.
        models: what it serves by name, and the state of each: `ready`, `starting`, `stopped` (it starts when it is
            asked for) or `unavailable`. Empty where the worker has one model alone.
        choices: which of them each project's requests may name, the one first that answers where they name none.
        group: the workers that it shares queue and conversations with; None where it has both to itself.
        store: tells that group from another one of its name that keeps its state elsewhere; None where it does not say.
        reason: why it serves nobody although its model answers: the store of its group is away. None of any other.
    """

    state: State
    model: str | None = None
    projects: tuple[str, ...] = ()
    identity: str | None = None
    capacity: Int64 | None = None
    since: float | None = None
    instance: Instance | None = None
    models: dict[_Name, _Word] = Field(default_factory=dict, max_length=MAX_NAMES)
    choices: dict[_Name, Annotated[tuple[_Name, ...], Field(max_length=MAX_NAMES)]] = Field(
        default_factory=dict, max_length=MAX_NAMES
    )
    group: _Name | None = None
    store: _Name | None = None
    reason: Annotated[str | None, Field(max_length=_MAX_REASON)] = None


class Latency(BaseModel):
    """Milliseconds from admission to the terminal reply, over the last interval; None where nothing ended in it.

    Of a slot: from when it took the request.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    avg: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Level(BaseModel):
    """How full something bounded is: what it holds now, of at most `bound`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    now: Int64
    bound: Int64


class _Served(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, allow_inf_nan=False
    )


class SlotStats(_Served):
    """What one slot, a place that serves a model, is doing and has done.

    Attributes:
        backend: what answers there: an engine in the worker's process, or a kind of server.
        state: of this slot: `ready`; `starting`; `stopped` (it starts when its model is asked for); `down` (its start
            has failed, or its server is gone, and is tried again); `open` or `half-open`, as `breaker`; `dead` (it
            serves no more until its worker is started again).
        active: requests that it runs now, of at most `limit`.
        limit: how many requests it may run at once now; None while that is not known.
        memory_declared: bytes that it should take, by the configuration; None where that does not say.
        memory_measured: bytes that it has taken; None while not known.
        requests: attempts that have ended there since the start, retries included.
        errors: those of them that failed, by kind: `429`, `503`, `529`, `5xx`, `connection`, `cut`, `timeout`, `error`.
        retries: attempts that were not a request's first.
        wait_ms: milliseconds that a request waited for the slot, on the average over the last interval.
        latency_ms: of an attempt, from when the slot took it to its end, over the last interval.
        first_token_ms: the median of the time to the first token over the last interval.
        breaker: `closed`: requests go there; `open`: it is left alone; `half-open`: it is tried with one token.
        headroom: what is left of the least of the backend's rate limits, from 0 to 1; None where it does not tell.
    """

    backend: _Word = ""
    state: _Word = ""
    active: Int64 = 0
    limit: Int64 | None = None
    memory_declared: Int64 | None = None
    memory_measured: Int64 | None = None
    requests: Int64 = 0
    errors: dict[_Word, Int64] = Field(default_factory=dict, max_length=MAX_NAMES)
    retries: Int64 = 0
    wait_ms: float | None = None
    latency_ms: Latency = Latency()
    first_token_ms: float | None = None
    breaker: _Word = "closed"
    headroom: float | None = None


class ModelStats(_Served):
    """One model of a worker's.

    Attributes:
        queued: requests that wait for it now.
        state: in the words of `models` in the presence.
        slots: the places that serve it, by name.
    """

    queued: Int64 = 0
    state: _Word = ""
    slots: dict[_SlotName, SlotStats] = Field(default_factory=dict, max_length=MAX_NAMES)


class GroupStats(_Served):
    """What the workers of a group share, as one of them sees it.

    Attributes:
        name: the group's.
        workers: those that are there, this one among them.
        leases: requests that one of them has taken and not ended yet.
        queued: requests that wait for any of them.
        sessions: conversations in the store.
        reached: whether the store answers this worker. Where it does not, the other figures are of when it last did.
        reason: why it does not; None where it does.
    """

    name: _Name
    workers: Int64 = 0
    leases: Int64 = 0
    queued: Int64 = 0
    sessions: Int64 = 0
    reached: bool = True
    reason: Annotated[str | None, Field(max_length=_MAX_REASON)] = None


class Stats(_Announcement):
    """A worker's figures, on `inferbus/workers/{worker}/stats`: each interval, and when somebody asks.

    Counters and histograms count since the start, so that any two readings tell of the time between them, and reading
    changes nothing. What is "over the last interval" is so of the worker's own last interval that has ended, and None
    before the first has.

    Attributes:
        joining: whether it still looks if another worker serves its projects, and takes no requests yet.
        uptime_s: seconds since the start.
        processed: requests answered.
        errors: requests that were admitted and ended in a failure.
        rejected: requests refused at admission, by failure code.
        repeated: repeats of requests that run or are remembered.
        prompt_tokens: of the requests answered.
        completion_tokens: the same.
        histograms: of admitted requests that have ended, by the names of a reply's timing: `queueMs`, `totalMs`, and
            `firstTokenMs` of those that were streamed.
        queued: requests waiting now, of at most `queue_size`.
        queued_by_project: of those, by project; where nothing waits is left out, as are those beyond the hundred in
            which most waits.
        active: requests in the engine now, of at most `capacity`.
        sessions: conversations in memory.
        levels: everything that is bounded, by name (`queue`, `outboundBytes`, `sessions`, those that are kept,
            `historyBytes`, `retryMemoryBytes`, and, where they are on, the tables `rateLimitSessions`,
            `rateLimitClients` and `tokenBudgetSessions`).
        replies_dropped: messages to the broker that were given up, since it took no more or none so large.
        unreadable_messages: messages from the broker that were dropped, since their packets were not legal.
        latency_ms: over the last interval.
        tokens_per_s: generated tokens per second over the last interval.
        requests_per_s: terminal replies per second over the last interval.
        models: by name.
        group: what it shares with other workers; None where that is nothing.
    """

    joining: bool = False
    uptime_s: float = 0.0
    processed: Int64 = 0
    errors: Int64 = 0
    rejected: dict[str, Int64] = Field(default_factory=dict, max_length=MAX_NAMES)
    repeated: Int64 = 0
    prompt_tokens: Int64 = 0
    completion_tokens: Int64 = 0
    histograms: dict[str, Histogram] = Field(default_factory=dict, max_length=MAX_NAMES)
    queued: Int64 = 0
    queue_size: Int64 | None = None
    queued_by_project: dict[_Name, Int64] = Field(default_factory=dict, max_length=MAX_NAMES)
    active: Int64 = 0
    capacity: Int64 | None = None
    sessions: Int64 = 0
    levels: dict[str, Level] = Field(default_factory=dict, max_length=MAX_NAMES)
    replies_dropped: Int64 = 0
    unreadable_messages: Int64 = 0
    latency_ms: Latency = Latency()
    tokens_per_s: float | None = None
    requests_per_s: float | None = None
    models: dict[_Name, ModelStats] = Field(default_factory=dict, max_length=MAX_NAMES)
    group: GroupStats | None = None


_Model = TypeVar("_Model", Presence, Stats)


def decode_announcement(model: type[_Model], payload: bytes) -> _Model | None:
    """The announcement in a payload; None where it is none (a cleared presence, another program's message).

    Anyone may say anything on these topics: what comes through is bounded, so that it can be reckoned with and shown.
    """
    if len(payload) > _MAX_BYTES:
        return None
    try:
        return model.model_validate_json(payload)
    except ValidationError:
        return None
