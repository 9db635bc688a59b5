"""How settings are found, and the ones about the connection, which both wings share.

Each setting is said once, as a field of a model: that makes its flag, its environment name and its key in the file.
Precedence: flags, then `INFERBUS_…`, then mosquitto's `MQTT_HOST/PORT/USERNAME/PASSWORD`, then the YAML file, then
the default. A user in the broker's URL is a username, and a password file a password, from where it stands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from paho.mqtt.enums import MQTTProtocolVersion
from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from inferbus_client.broker_url import BrokerUrl
from inferbus_client.link_options import LinkOptions, Tls

_file: ContextVar[Mapping[str, Any]] = ContextVar("_file")

_PASSWORDS: Final = frozenset({"password", "password_file"})
_PROTOCOLS = {"auto": None, "5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


class SettingsError(Exception):
    """Settings that cannot be used. The text is one sentence for the user and holds no secret."""


def _check_broker(url: str) -> str:
    return str(BrokerUrl.parse(url))


class _Yielding(PydanticBaseSettingsSource):
    """A source that is silent on what a stronger one has said in another way: in the broker's URL, or in a file."""

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def __repr__(self) -> str:
        return repr(self._source)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        said, stronger = self._source(), self.current_state
        decided: set[str] = set()
        if _names_a_user(stronger.get("broker")):
            decided.add("username")
        if not _PASSWORDS.isdisjoint(stronger):
            decided |= _PASSWORDS
        return {name: value for name, value in said.items() if name not in decided}


def _names_a_user(broker: object) -> bool:
    try:
        return isinstance(broker, str) and BrokerUrl.parse(broker).username is not None
    except ValueError:
        return False


class FileSettings(BaseSettings):
    """Settings from flags, environment and a YAML file, each said once."""

    model_config = SettingsConfigDict(
        env_prefix="INFERBUS_", extra="forbid", frozen=True, nested_model_default_partial_update=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class names it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        mosquitto = InitSettingsSource(settings_cls, init_kwargs=_mosquitto_environment(settings_cls))
        file = InitSettingsSource(settings_cls, init_kwargs=dict(_file.get({})))
        weaker = (_Yielding(source) for source in (env_settings, mosquitto, file))
        return init_settings, *weaker

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Self:
        """The settings in force.

        Args:
            flags: what the command line gave; None values count as not given.
            file: the YAML file, or None.

        Raises:
            SettingsError: something given is not usable.
        """
        token = _file.set({} if file is None else _read(file))
        try:
            return cls(**{name: value for name, value in (flags or {}).items() if value is not None})
        except ValidationError as error:
            raise SettingsError(_in_a_sentence(error)) from None
        finally:
            _file.reset(token)


class ConnectionSettings(FileSettings):
    """How to reach the broker."""

    broker: Annotated[str, AfterValidator(_check_broker)] = Field(
        "mqtt://127.0.0.1:1883",
        description="Where the broker is: mqtt://, mqtts://, ws:// or wss://[user@]host[:port].",
    )
    username: str | None = Field(None, description="The user at the broker.")
    password: SecretStr | None = Field(None, description="The password at the broker (environment or file only).")
    password_file: Path | None = Field(None, description="A file that holds the password.")
    cafile: Path | None = Field(None, description="Certificate authorities to trust (PEM) instead of the system's.")
    cert: Path | None = Field(None, description="Client certificate (PEM).")
    key: Path | None = Field(None, description="The client certificate's private key (PEM).")
    keepalive: Annotated[int, Field(ge=5, le=3600)] = Field(
        30, description="Seconds between signs of life to the broker."
    )
    mqtt_version: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="auto: MQTT 5, and 3.1.1 where that is refused."
    )
    max_packet_bytes: Annotated[int, Field(ge=256, le=268_435_460)] | None = Field(
        None,
        description="The largest packet that the broker takes, where it cannot say so itself (MQTT 3.1.1).",
        json_schema_extra={"default": "none"},
    )

    @model_validator(mode="after")
    def _uses_its_tls_files(self) -> Self:
        """A certificate authority that is named and not asked would let everything go in clear, without a word."""
        url = BrokerUrl.parse(self.broker)
        given = [name for name in ("cafile", "cert", "key") if getattr(self, name) is not None]
        if given and not url.tls:
            raise ValueError(
                f"{' and '.join(given)}: {url} is not encrypted; the broker must be a {url.scheme}s:// one"
            )
        if self.key is not None and self.cert is None:
            raise ValueError("key: it belongs to a certificate; cert names none")
        return self

    def link_options(self, client_id: str, **more: Any) -> LinkOptions:
        """These settings as the link takes them.

        Raises:
            SettingsError: the password file cannot be read.
        """
        return LinkOptions(
            url=BrokerUrl.parse(self.broker),
            client_id=client_id,
            username=self.username,
            password=self._secret(),
            tls=Tls(self.cafile, self.cert, self.key),
            keepalive=self.keepalive,
            protocol=_PROTOCOLS[self.mqtt_version],
            max_packet_bytes=self.max_packet_bytes,
            **more,
        )

    def _secret(self) -> str | None:
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text().strip()
        except OSError as error:
            raise SettingsError(f"cannot read the password file: {error.strerror}") from None


def _mosquitto_environment(model: type[BaseSettings]) -> dict[str, str]:
    """What the variables that mosquitto's users already have say; they name only the connection."""
    if "broker" not in model.model_fields:
        return {}
    found: dict[str, str] = {}
    if host := os.environ.get("MQTT_HOST"):
        port = os.environ.get("MQTT_PORT", "1883")
        found["broker"] = f"{'mqtts' if port == '8883' else 'mqtt'}://{host}:{port}"
    for name in ("username", "password"):
        if value := os.environ.get(f"MQTT_{name.upper()}"):
            found[name] = value
    return found


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SettingsError(f"{path} is not YAML") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{path} must hold a mapping of settings")
    return content


def _in_a_sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(step) for step in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"there is no setting {name}"
    return f"{name}: {text[0].lower()}{text[1:]}" if name else text
