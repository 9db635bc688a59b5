"""The settings of the client library and its commands."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from inferbus_client.contract import topics
from inferbus_client.errors import ConflictError
from inferbus_client.settings.connection import ConnectionSettings, Username
from inferbus_client.units import Duration, Patience

_MOSQUITTO_VERSIONS: Final = {"mqttv5": "5", "mqttv311": "3.1.1", "311": "3.1.1"}


def check_project(name: str) -> str:
    """A project's name; for validators."""
    if not topics.is_project(name):
        raise ValueError(f"must match {topics.NAME}")
    return name


def _check_session(name: str) -> str:
    if not topics.is_session(name):
        raise ValueError("must match [A-Za-z0-9_.:-]{1,128}")
    return name


def _mosquitto_version(value: object) -> object:
    """mosquitto_pub says `mqttv5` and `mqttv311`, or `311`."""
    return _MOSQUITTO_VERSIONS.get(value, value) if isinstance(value, str) else value


def _off_is_0(value: object) -> object:
    """YAML makes False of a bare `off`."""
    return 0 if value is False or value == "off" else value


def _also(name: str, *flags: str) -> Any:
    """A connection setting with mosquitto's spellings; the worker, which passes options on to vLLM, lacks them."""
    field = copy(ConnectionSettings.model_fields[name])
    field.json_schema_extra = {"flags": list(flags)}
    return field


@dataclass(frozen=True, slots=True)
class Terms:
    """How long to wait for what, in seconds, and how often to try.

    Attributes:
        timeout: from the call to the answer, retries included; the worker is told as the request's deadline.
        first_timeout: from a send to the first sign of life.
        silence_timeout: between two deltas.
        retries: how many times a retryable failure, or silence, is answered by sending again.
    """

    timeout: float = 120.0
    first_timeout: float = 15.0
    silence_timeout: float = 30.0
    retries: int = 3


class ClientSettings(ConnectionSettings):
    """How to reach the broker, whom to ask there, and how patiently."""

    username: Username | None = _also("username", "-u")
    mqtt_version: Annotated[Literal["auto", "5", "3.1.1"], BeforeValidator(_mosquitto_version)] = _also(
        "mqtt_version", "-V"
    )
    project: Annotated[str, AfterValidator(check_project)] = Field(
        "general", description="The project to ask.", json_schema_extra={"metavar": "NAME"}
    )
    identity: Literal["none", "topic"] = Field(
        "none", description="topic: the user's own topics, {project}/users/{user}/…, as the worker's --identity."
    )
    user: str | None = Field(
        None, description="With --identity topic: the user in the topics, where it is not the login's own name."
    )
    session: Annotated[str, AfterValidator(_check_session)] | None = Field(
        None,
        description="The conversation to go on with; a fresh one where none is named.",
        json_schema_extra={"metavar": "ID"},
    )
    client_id: Annotated[str, AfterValidator(_check_session)] | None = Field(
        None,
        description="Who asks: the MQTT client id; made up where none is given.",
        json_schema_extra={"flags": ["-i", "--id"], "metavar": "ID"},
    )
    qos: Annotated[int, Field(ge=0, le=2)] = Field(
        1, description="Quality of service of requests.", json_schema_extra={"flags": ["-q"], "metavar": "0|1|2"}
    )
    timeout: Patience = Field(
        120.0,
        description="How long to wait for a whole answer; the worker is told, and gives up then too.",
        json_schema_extra={"flags": ["-W"], "metavar": "TIME", "default": "2m"},
    )
    first_timeout: Patience = Field(
        15.0,
        description="How long to wait for a first sign of life.",
        json_schema_extra={"metavar": "TIME", "default": "15s"},
    )
    silence_timeout: Patience = Field(
        30.0,
        description="How long a stream may fall silent.",
        json_schema_extra={"metavar": "TIME", "default": "30s"},
    )
    retries: Annotated[int, Field(ge=0, le=100)] = Field(
        3, description="How often to try again what may succeed later.", json_schema_extra={"metavar": "N"}
    )
    pacing: Annotated[Duration, BeforeValidator(_off_is_0)] = Field(
        0.5,
        description="The least time between two sends in one session; 0 or off sends at once.",
        json_schema_extra={"metavar": "TIME", "default": "500ms"},
    )
    connect_timeout: Patience = Field(
        10.0,
        description="How long to try to reach the broker.",
        json_schema_extra={"metavar": "TIME", "default": "10s"},
    )

    @model_validator(mode="after")
    def _has_a_user(self) -> Self:
        if self.identity == "topic" and not topics.is_user(self._topic_user):
            raise ConflictError(
                "--identity topic needs a user (or username) that matches [A-Za-z0-9_.@:-]{1,128}",
                *("identity", "user", "username"),
            )
        if self.identity == "none" and self.user is not None:
            raise ConflictError("--user needs --identity topic: else no topic has a user", "user", "identity")
        return self

    @property
    def _topic_user(self) -> str:
        return self.user or self.username or self.urls[0].username or ""

    @property
    def scope(self) -> str:
        """What this client's topics begin with."""
        return self.scope_of(self.project)

    def scope_of(self, project: str) -> str:
        """What they begin with in another project."""
        return topics.scope(project, self._topic_user if self.identity == "topic" else None)

    def terms(self) -> Terms:
        return Terms(
            timeout=self.timeout,
            first_timeout=self.first_timeout,
            silence_timeout=self.silence_timeout,
            retries=self.retries,
        )
