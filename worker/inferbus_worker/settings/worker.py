"""The worker's settings, each said once: its flag, its environment name and its key in the YAML file come from here."""

from __future__ import annotations

import os
import re
import socket
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from inferbus_client.contract import topics
from inferbus_client.contract.presence import MAX_NAMES
from inferbus_client.settings.connection import ConnectionSettings
from inferbus_client.settings.file import Keys
from inferbus_client.settings.sources import FILE_ONLY, nearest
from inferbus_client.units import Duration, Size, split
from inferbus_client.web.listening import listening_at
from inferbus_worker.settings.models import Backend, Concurrency, Memory, Models, ModelSettings, Url, VariableName
from inferbus_worker.settings.pairs import conflicts
from inferbus_worker.settings.projects import MaxTokens, Projects, ProjectSettings, Temperature, TopP
from inferbus_worker.settings.rates import Rate, RateLimit
from inferbus_worker.settings.store_url import Store
from inferbus_worker.settings.vllm_options import VllmOptions


def _check_filters(filters: list[str]) -> list[str]:
    for name in filters:
        if not topics.is_filter(name):
            raise ValueError(f"{name!r} is no topic filter: + and # stand alone in their level, # in the last one")
    return filters


def _check_users(names: list[str]) -> list[str]:
    for name in names:
        if not topics.is_user(name):
            raise ValueError(f"{name!r} is no user: it must match [A-Za-z0-9_.@:-]{{1,128}}")
    return names


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64] or "worker"


def _state_dir() -> Path:
    """Systemd's StateDirectory, else where the XDG base directory specification puts state."""
    if directory := os.environ.get("STATE_DIRECTORY"):
        return Path(directory.partition(":")[0])
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "inferbus"
    except RuntimeError:  # a user without a home, as in a container
        return Path("/var/lib/inferbus")


class Settings(ConnectionSettings):
    """Everything `inferbus serve` can be told. Sizes are bytes, times are seconds, both written with units."""

    projects: Projects = Field(
        default_factory=lambda: {"general": ProjectSettings()},
        description="A project to serve; in the file, with its settings.",
        json_schema_extra={"flags": ["--project"], "metavar": "NAME", "default": "general"},
    )
    worker_id: Annotated[str, Field(pattern=f"^{topics.NAME}$")] = Field(
        default_factory=_host_name,
        description="This worker's name on the bus; also its MQTT client id, so it must be the only one.",
        json_schema_extra={"default": "the host's name"},
    )
    identity: Literal["none", "topic"] = Field(
        "none",
        description="topic: only {project}/users/{user}/… is served, where the broker binds the user to the login.",
    )
    gateways: Annotated[list[str], BeforeValidator(split), AfterValidator(_check_users)] = Field(
        default_factory=list,
        description="With --identity topic: a user that is a gateway; whom its requests name as clientId is who asks.",
        json_schema_extra={"flags": ["--gateway"], "metavar": "USER"},
    )
    alongside: bool = Field(
        False,
        description="Also serve projects that another worker serves: each of the two then answers every request.",
    )
    state: Store | None = Field(
        None,
        description="The store that workers share: redis://, rediss://, unix://, redis+sentinel://HOST,HOST/NAME or "
        "redis+cluster://HOST,HOST. Without it one worker keeps all in its own memory.",
        json_schema_extra={"default": "none", "metavar": "URL"},
    )
    state_password: SecretStr | None = Field(None, description="The password at the store (environment or file only).")
    state_file: Path | None = Field(
        None,
        description="A file that holds the store's password, or instead of --state its whole URL.",
        json_schema_extra={"default": "none", "metavar": "FILE"},
    )
    group: Annotated[str, Field(pattern=f"^{topics.NAME}$")] = Field(
        "inferbus",
        description="With --state: the workers that share. What they share is kept under this name.",
        json_schema_extra={"metavar": "NAME"},
    )
    lease: Annotated[Duration, Field(ge=2, le=3600)] = Field(
        10.0,
        description="With --state: how long the store may hear nothing of a worker before another takes its requests.",
        json_schema_extra={"default": "10s", "metavar": "TIME"},
    )
    remote_drain: bool = Field(
        False,
        description="Let `inferbus drain` end this worker over the bus; who may ask for it, the broker's roles say.",
    )
    engine: Literal["vllm", "simulated"] = Field("vllm", description="vllm, or simulated: no model, echoes.")

    vllm: VllmOptions = Field(
        default_factory=dict,
        description="Options of vLLM's, by vLLM's names; those of the command line win.",
        json_schema_extra=FILE_ONLY,
    )
    models: Models = Field(
        default_factory=dict,
        description="Models by name, each with the slots that serve it; instead of MODEL.",
        json_schema_extra=FILE_ONLY,
    )
    backend: Backend | None = Field(
        None,
        description="MODEL is served by a server of this kind, not in this process. Several models, and servers "
        "that the worker starts, stand below models: in the file.",
        json_schema_extra={},
    )
    url: Url | None = Field(
        None,
        description="With --backend: where the server listens.",
        json_schema_extra={"default": "the backend's usual address"},
    )
    api_key_env: VariableName | None = Field(
        None,
        description="With --backend: the environment variable that holds the key.",
        json_schema_extra={"metavar": "NAME", "default": "none"},
    )
    api_key_file: Path | None = Field(
        None,
        description="With --backend: the file that holds the key.",
        json_schema_extra={"metavar": "FILE", "default": "none"},
    )
    concurrency: Concurrency | None = Field(
        None,
        description="Requests that MODEL may have at once: a number, or auto to find it out while serving.",
        json_schema_extra={"default": "as many as its engine runs at once", "metavar": "N|auto"},
    )
    workers: Annotated[int, Field(ge=1, le=4096)] = Field(
        8, description="Worker threads at rest. Each runs one request at a time; more come as requests wait."
    )
    max_workers: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None,
        description="The most worker threads: the most requests in all engines at once.",
        json_schema_extra={"default": "as many as the engines run at once"},
    )
    slot_timeout: Annotated[Duration, Field(gt=0)] = Field(
        60.0,
        description="With models: or --backend: how long a request may wait for a slot. The time that a model takes to "
        "start does not count.",
        json_schema_extra={"default": "60s", "metavar": "TIME"},
    )
    memory_budget: Memory | None = Field(
        None,
        description="What the models that this worker starts may take of the host's memory together.",
        json_schema_extra={"default": "none", "metavar": "SIZE"},
    )
    max_retries: Annotated[int, Field(ge=0, le=10)] = Field(
        2, description="How often a request is tried again that a backend has failed before anything was shown."
    )
    retry_for: Duration = Field(
        300.0,
        description="How long after its admission a request may be tried again.",
        json_schema_extra={"default": "5m", "metavar": "TIME"},
    )
    queue_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(1000, description="Requests that may wait.")
    form_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="Share of what a model runs at once for answers in a given form (response_format), one at least; "
        "more are overloaded. 1: they wait as all others do.",
    )
    form_timeout: Annotated[Duration, Field(gt=0)] = Field(
        20.0,
        description="How long an answer in a given form may take to its first token.",
        json_schema_extra={"default": "20s", "metavar": "TIME"},
    )
    ageing: Duration = Field(
        5.0,
        description="How much waiting makes up for one step of priority.",
        json_schema_extra={"default": "5s", "metavar": "TIME"},
    )
    rate_limit: Rate = Field(
        RateLimit(10, 60.0),
        description="Requests per session in a sliding window, or off.",
        json_schema_extra={"default": "10/60s"},
    )
    client_rate_limit: Rate = Field(
        None,
        description="Requests per client: the topic's user with --identity topic (of a gateway's, its clientId), else "
        "the payload's clientId; those that name none share one limit in their project.",
        json_schema_extra={"default": "off"},
    )
    project_rate_limit: Rate = Field(
        None,
        description="Requests per project; a project in the file may have its own.",
        json_schema_extra={"default": "off"},
    )
    total_rate_limit: Rate = Field(
        None, description="Requests of all projects together.", json_schema_extra={"default": "off"}
    )
    rate_limit_sessions: Annotated[int, Field(ge=1)] = Field(
        100_000,
        description="Sessions, clients and token budgets that are counted, of each so many; the least recently "
        "counted is forgotten first.",
    )
    token_budget: Rate = Field(
        None,
        description="Tokens per session in a sliding window, such as 20000/60s: the prompt and what may be generated, "
        "checked at admission; at the end what was used counts.",
        json_schema_extra={"default": "off"},
    )
    max_message_bytes: Annotated[Size, Field(ge=64, le=256_000_000)] = Field(
        65536,
        description="Largest request payload.",
        json_schema_extra={"default": "64 KiB", "metavar": "SIZE"},
    )
    max_conversation_bytes: Annotated[Size, Field(ge=64, le=256_000_000)] = Field(
        1024 * 1024,
        description="Largest payload of a request that brings its whole conversation along (messages).",
        json_schema_extra={"default": "1 MiB", "metavar": "SIZE"},
    )
    max_sessions: Annotated[int, Field(ge=1)] = Field(
        1000, description="Conversations kept; least recently used goes first."
    )
    max_history_bytes: Annotated[Size, Field(ge=65536)] = Field(
        256 * 1024 * 1024,
        description="Kept conversations' histories together; least recently used goes first.",
        json_schema_extra={"default": "256 MiB", "metavar": "SIZE"},
    )
    session_ttl: Duration = Field(
        3600.0,
        description="How long an idle conversation is kept.",
        json_schema_extra={"default": "1h", "metavar": "TIME"},
    )
    max_history_tokens: Annotated[int, Field(ge=0)] = Field(
        3000, description="Longest history in a prompt; whole oldest turns go, in large steps."
    )
    temperature: Temperature = Field(0.6, description="Where neither request nor project says.")
    top_p: TopP = Field(0.9, description="Where neither request nor project says.")
    max_tokens: MaxTokens = Field(512, description="Longest answer where neither request nor project says.")
    max_tokens_cap: MaxTokens | None = Field(
        None,
        description="Longest answer that a request may ask for; a project in the file may have its own.",
        json_schema_extra={"default": "none"},
    )

    reply_qos: Annotated[int, Field(ge=0, le=1)] = Field(0, description="MQTT QoS of replies.")
    request_qos: Annotated[int, Field(ge=0, le=1)] = Field(1, description="MQTT QoS of our subscriptions.")
    ack: Literal["on-receipt", "after-reply"] = Field(
        "on-receipt",
        description="after-reply: a QoS 1 request stays with the broker until it has been answered.",
    )
    session_expiry: Duration = Field(
        3600.0,
        description="With --ack after-reply: how long the broker keeps requests for a worker that is away.",
        json_schema_extra={"default": "1h", "metavar": "TIME"},
    )
    max_attempts: Annotated[int, Field(ge=1)] = Field(
        3, description="With --ack after-reply: turns that may end their worker before a request is set aside."
    )
    state_dir: Path = Field(
        default_factory=_state_dir,
        description="With --ack after-reply: where attempts are kept; requests set aside, for a week, 16 MiB at most.",
        json_schema_extra={"default": "$STATE_DIRECTORY or ~/.local/state/inferbus", "metavar": "FOLDER"},
    )
    reply_topics: Annotated[list[str], BeforeValidator(split), AfterValidator(_check_filters)] = Field(
        default_factory=list,
        description="Topic filters where replies may go besides the session's own topic.",
        json_schema_extra={"flags": ["--reply-topic"], "metavar": "FILTER"},
    )
    delta_interval: Duration = Field(
        0.05,
        description="Time between two deltas of a streamed answer.",
        json_schema_extra={"default": "50ms", "metavar": "TIME"},
    )
    max_outbound_bytes: Annotated[Size, Field(ge=65536)] = Field(
        64 * 1024 * 1024,
        description="Replies that may wait for the broker. Of more, refusals are dropped and answers become errors.",
        json_schema_extra={"default": "64 MiB", "metavar": "SIZE"},
    )
    max_intake_bytes: Annotated[Size, Field(ge=65536)] = Field(
        16 * 1024 * 1024,
        description="Requests that may wait for admission, where it counts tokens. Of more, they are refused.",
        json_schema_extra={"default": "16 MiB", "metavar": "SIZE"},
    )
    retry_memory: Duration = Field(
        300.0,
        description="How long a finished request is remembered for its retries.",
        json_schema_extra={"default": "5m", "metavar": "TIME"},
    )
    retry_memory_bytes: Annotated[Size, Field(ge=0)] = Field(
        16 * 1024 * 1024,
        description="How much of finished requests is remembered.",
        json_schema_extra={"default": "16 MiB", "metavar": "SIZE"},
    )

    broker_timeout: Annotated[Duration, Field(gt=0)] = Field(
        10.0,
        description="How long to try broker and store at the start; what waiting does not change ends it at once.",
        json_schema_extra={"default": "10s", "metavar": "TIME"},
    )
    engine_silence: Duration = Field(
        30.0,
        description="Without a finished request for this long the engine is asked for one token; 0: never.",
        json_schema_extra={"default": "30s", "metavar": "TIME"},
    )
    stats_interval: Duration = Field(
        60.0, description="Time between two stats lines.", json_schema_extra={"default": "60s", "metavar": "TIME"}
    )
    drain_timeout: Duration = Field(
        30.0,
        description="How long requests in flight may take to finish at shutdown, and their replies to leave.",
        json_schema_extra={"default": "30s", "metavar": "TIME"},
    )
    http: Annotated[str, BeforeValidator(listening_at)] | None = Field(
        None,
        description="Serve health, metrics and figures over HTTP there; PORT alone is one on 127.0.0.1.",
        json_schema_extra={"default": "off", "metavar": "[HOST:]PORT"},
    )
    http_token_file: Path | None = Field(
        None,
        description="With --http: the file that holds the token which all but /healthz and /readyz ask for.",
        json_schema_extra={"default": "none", "metavar": "FILE"},
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")

    simulated_first_token: Duration = Field(
        0.0,
        description="Simulated engine: time to the first token.",
        json_schema_extra={"default": "0s", "metavar": "TIME"},
    )
    simulated_per_token: Duration = Field(
        0.0,
        description="Simulated engine: time per further token.",
        json_schema_extra={"default": "0s", "metavar": "TIME"},
    )
    simulated_capacity: Annotated[int, Field(ge=1)] = Field(256, description="Simulated engine: generations at once.")
    simulated_failure_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Simulated engine: share of requests that fail."
    )
    simulated_grammar: Duration = Field(
        0.0,
        description="Simulated engine: time to compile the grammar of an answer in a given form.",
        json_schema_extra={"default": "0s", "metavar": "TIME"},
    )

    @model_validator(mode="after")
    def _can_be_meant(self) -> Self:
        for conflict in conflicts(self):
            raise conflict
        return self

    @classmethod
    def elsewhere(cls, keys: Keys) -> str:
        """For a key at the top of the file, of a model or of a slot that is no setting."""
        match keys:
            case ("model",):
                return "; the model is named on the command line, or below models:"
            case (str(name),):
                return "" if nearest(name, cls.model_fields) else "; options of vLLM's stand below vllm:"
            case ("models", _, str(name)) | ("models", _, "slots", _, str(name)):
                where = "; what vLLM or a request is to get besides stands below options:"
                return "" if nearest(name, ModelSettings.model_fields) else where
        return ""

    @property
    def reached_models(self) -> dict[str, ModelSettings]:
        """Those of `models` that a project's requests get to, in their order. Nobody could ask for the others."""
        named = [name for project in self.projects.values() for name in [project.model, *project.models] if name]
        line = list(dict.fromkeys(named if len(self.models) > 1 else self.models))
        for name in line:  # which grows meanwhile
            line += [other for other in self.models[name].fallback if other not in line]
        return {name: one for name, one in self.models.items() if name in line}

    @property
    def model_choices(self) -> dict[str, tuple[str, ...]]:
        """Per project the models that its requests may name, its own first; empty where there is but one.

        For presence, which holds so many of each and no more: whoever is left out may name them all the same.
        """
        if not self.models:
            return {}
        first = next(iter(self.models))
        return {
            name: tuple(dict.fromkeys([project.model or first, *project.models]))[:MAX_NAMES]
            for name, project in islice(self.projects.items(), MAX_NAMES)
        }

    @property
    def readable_bytes(self) -> int:
        """Up to here a payload that is too large is still read for its sender's address, to refuse it there."""
        return max(16 * self.max_message_bytes, 2 * self.conversation_bytes)

    @property
    def largest_request_bytes(self) -> int:
        """The largest payload that may be taken in, whatever it asks for."""
        return max(self.max_message_bytes, self.conversation_bytes)

    @property
    def conversation_bytes(self) -> int:
        """The largest conversation that is taken in. A default fits into the intake: it is nobody's wish."""
        if "max_conversation_bytes" in self.model_fields_set:
            return self.max_conversation_bytes
        return min(self.max_conversation_bytes, self.max_intake_bytes // 2)

    @property
    def is_shared(self) -> bool:
        """Whether what is to be remembered is kept in a store that other workers have too."""
        return self.state is not None or self.state_file is not None

    @property
    def slot_timeout_in_force(self) -> float | None:
        """How long a request may wait for a slot; a worker of one engine in its own process lets it wait."""
        return self.slot_timeout if self.models or self.backend is not None else None

    def max_tokens_cap_of(self, project: str) -> int | None:
        """The longest answer that a request in this project may ask for; None: any."""
        return self.projects[project].max_tokens_cap or self.max_tokens_cap

    def max_tokens_of(self, project: str) -> int:
        """The longest answer of a request that does not say. The cap holds here too: a default is nobody's wish."""
        longest = self.projects[project].max_tokens or self.max_tokens
        cap = self.max_tokens_cap_of(project)
        return longest if cap is None else min(longest, cap)

    def project_rate_limit_of(self, name: str) -> RateLimit | None:
        """The limit of a project as a whole: its own, also where that is `off`, or the one for every project."""
        own = self.projects[name].project_rate_limit
        return self.project_rate_limit if own == "inherit" else own

    def masked(self) -> dict[str, Any]:
        """The effective settings as they are written in the file, for logs and `doctor`; secrets print as stars."""
        return self.model_dump(mode="json")
